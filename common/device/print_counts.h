// A WatchReport for people and for programs. Needs nothing of the CPU back end: the CUDA back end links it too.
#pragma once
#include <iosfwd>
#include <string>

#include "common/device/counts.h"
#include "common/problem/problem.h"

namespace flash {

// What ./run --profile prints: a table of kernels, the hottest lines beside their source text (read from the files the
// report names, where they can be opened), the faults. Where nothing was watched, one sentence that says so.
void print_watch_report(std::ostream&, const WatchReport&);

// The counted global traffic beside the step's own formula and the least any implementation needs. `step` and `least`
// are Plan::traffic and least_traffic() of the same problem, times the number of calls the report covers.
void print_traffic(std::ostream&, const WatchReport&, const Traffic& step, const Traffic& least);

// The faults alone, as print_watch_report ends with them; nothing if there are none.
void print_faults(std::ostream&, const WatchReport&);

// {"watched": true, "counts": {...}, "kernels": [...], "faults": [...]}: one JSON object, no newline at its end.
// counts: global_read_bytes, global_read_requests, global_read_sectors, global_write_..., shared_read_bytes,
// shared_read_requests, shared_read_wavefronts, shared_read_conflicts, shared_write_..., atomics, shuffles, barriers,
// exps, mmas, ldmatrixes, async_copies, stmatrixes, tma_loads, tma_stores, tma_reductions, tma_global_bytes,
// tma_shared_bytes, mbarrier_arrivals, mbarrier_waits, named_barriers, distinct_read_bytes, distinct_write_bytes.
// kernels[]: name, launches, blocks, threads, counts, lines[] (file, line, exact, counts). faults[]: kind, message, kernel,
// array, file, line, other_file, other_line, times.
std::string watch_report_json(const WatchReport&);

}  // namespace flash
