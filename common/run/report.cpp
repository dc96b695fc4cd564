#include "common/run/report.h"

#include <algorithm>
#include <cstdint>
#include <ostream>

#include "common/base/json.h"
#include "common/base/text.h"
#include "common/device/print_counts.h"
#include "common/device/timing.h"

namespace flash {

namespace {

std::string problem_line(const RunReport& r) {
  const Problem& p = r.problem;
  std::string text = format("batch %d  heads %d", p.batch, p.heads);
  if (p.kv_heads != p.heads) text += format("  kv_heads %d", p.kv_heads);
  if (p.seqlen_q == p.seqlen_k) {
    text += format("  seqlen %d", p.seqlen_q);
  } else {
    text += format("  seqlen_q %d  seqlen_k %d", p.seqlen_q, p.seqlen_k);
  }
  text += format("  head_dim %d  %s", p.head_dim, dtype_name(p.dtype));
  if (p.causal) text += "  causal";
  if (p.deterministic) text += "  deterministic";
  return text + format("  scale %.4g  (%s)", p.softmax_scale, r.values.c_str());
}

// The tensor that is nearest to its bound or farthest over it.
const TensorCheck* worst_tensor(const CheckResult& check) {
  const auto share = [](const TensorCheck& t) { return t.max_bound > 0 ? t.max_error / t.max_bound : 0.0; };
  const TensorCheck* worst = nullptr;
  for (const TensorCheck& t : check.tensors) {
    if (t.tensor == "LSE") continue;
    const bool fails_alone = worst && t.verdict == Verdict::fail && worst->verdict != Verdict::fail;
    if (!worst || fails_alone || (t.verdict == worst->verdict && share(t) > share(*worst))) worst = &t;
  }
  return worst;
}

void write_head(JsonWriter& json, const RunReport& r) {
  const Problem& p = r.problem;
  json.value("step", r.step.number);
  json.value("name", r.step.name);
  json.value("idea", r.step.idea);
  json.value("direction", r.step.direction == Direction::forward ? "forward" : "backward");
  json.value("backend", backend_name());
  json.value("device", r.device.name);
  json.value("compute_capability", r.device.compute_capability);
  json.begin_object("problem");
  json.value("batch", p.batch);
  json.value("heads", p.heads);
  json.value("kv_heads", p.kv_heads);
  json.value("seqlen_q", p.seqlen_q);
  json.value("seqlen_k", p.seqlen_k);
  json.value("head_dim", p.head_dim);
  json.value("causal", p.causal);
  json.value("scale", double(p.softmax_scale));
  json.value("dtype", dtype_name(p.dtype));
  json.value("deterministic", p.deterministic);
  json.value("values", r.values);
  json.end_object();
}

void write_tensor_check(JsonWriter& json, const TensorCheck& t) {
  json.begin_object();
  json.value("tensor", t.tensor);
  json.value("verdict", verdict_name(t.verdict));
  json.value("max_error", t.max_error);
  json.value("rms_error", t.rms_error);
  json.value("max_bound", t.max_bound);
  json.value("rms_bound", t.rms_bound);
  json.value("rows_checked", uint64_t(t.rows_checked));
  json.value("rows_total", uint64_t(t.rows_total));
  json.value("wrong", uint64_t(t.wrong));
  json.value("first_index", t.first_index);
  json.value("first_expected", t.first_expected);
  json.value("first_got", t.first_got);
  json.value("worst_index", t.worst_index);
  json.value("worst_expected", t.worst_expected);
  json.value("worst_got", t.worst_got);
  json.value("pattern", t.pattern);
  json.end_object();
}

void write_counts(JsonWriter& json, const WatchReport& counts) {
  if (counts.watched) {
    json.members_of(watch_report_json(counts));
  } else {  // zeros would read as counts
    json.value("watched", false);
    json.null("counts");
    json.null("kernels");
    json.begin_array("faults");
    json.end_array();
  }
}

}  // namespace

Verdict verdict_of(const RunReport& r) {
  if (!r.counts.faults.empty()) return Verdict::fail;
  return r.checked ? r.check.verdict : Verdict::skip;
}

void print_header(std::ostream& out, const RunReport& r) {
  out << r.step.name << ": " << r.step.idea << "\n";
  out << "problem  " << problem_line(r) << "\n";
  out << "device   " << r.device.name;
  if (r.device.is_emulated) {
    out << "; no GPU is used, so no time below speaks of one\n";
  } else {
    out << format(" (cuda, compute capability %d.%d, %d SMs)\n", r.device.compute_capability / 10,
                  r.device.compute_capability % 10, r.device.sm_count);
  }
  out.flush();
}

void print_results(std::ostream& out, const RunReport& r, bool profile) {
  const Model& m = r.model;
  if (!r.checked) {
    out << "check    not checked (--no-check)\n";
  } else if (r.check.verdict == Verdict::pass) {
    out << "check    PASS  " << r.check.message << "\n";
  } else {
    out << "check    " << (r.check.verdict == Verdict::skip ? "SKIP" : "FAIL") << "\n" << r.check.message << "\n";
  }
  if (!r.counts.faults.empty()) {
    out << "faults   FAIL  the kernel's memory accesses are wrong in " << r.counts.faults.size()
        << (r.counts.faults.size() == 1 ? " place\n" : " places\n");
    if (!profile) print_faults(out, r.counts);  // the profile ends with them
  }
  if (r.time_ms) {
    const double seconds = r.time_ms->median * 1e-3;
    const double tflops = m.flops / seconds * 1e-12;
    const double gb_per_s = m.min_bytes / seconds * 1e-9;
    out << format("time     %.4g ms  (median of %d; %.4g to %.4g)\n", r.time_ms->median, r.iters, r.time_ms->min,
                  r.time_ms->max);
    out << format("speed    %.3g TFLOP/s", tflops);
    if (m.peak_tflops > 0) {
      out << format(", %.1f %% of this GPU's %.4g (%s)", 100 * tflops / m.peak_tflops, m.peak_tflops,
                    r.step.uses_tensor_cores ? "tensor cores" : "fp32");
    }
    out << format("; %.3g GB/s of the least bytes", gb_per_s);
    if (m.peak_gb_per_s > 0) out << format(", %.1f %% of its %.4g", 100 * gb_per_s / m.peak_gb_per_s, m.peak_gb_per_s);
    out << "\n";
  }
  if (r.device.is_emulated) {
    out << "took     " << human_seconds(r.wall_seconds) << " on this CPU";
    if (r.counts.watched) out << ", every memory access watched";
    out << "\n";
  }
  out << "model    " << human_flops(m.flops) << "; least traffic " << human_bytes(m.min_bytes);
  if (m.read_bytes + m.write_bytes > 0) {
    out << ", this step asks for " << human_bytes(m.read_bytes) << " read and " << human_bytes(m.write_bytes)
        << " written";
  }
  out << "; workspace " << human_bytes(m.workspace_bytes) << "\n";
  out << format("         %.3g FLOP a byte at least traffic", m.intensity);
  if (m.ridge > 0) {
    out << format("; this GPU's roofs meet at %.3g: %s binds, %.3g ms at best", m.ridge,
                  m.compute_bound ? "arithmetic" : "memory", m.least_ms);
  }
  out << "\n";
  if (r.counts.watched) {
    const Counts c = r.counts.total();
    out << "counted  " << human_bytes(double(c.global_read.bytes)) << " read in " << with_commas(c.global_read.sectors)
        << " sectors, " << human_bytes(double(c.global_write.bytes)) << " written in "
        << with_commas(c.global_write.sectors) << "; "
        << with_commas(c.shared_read.conflicts + c.shared_write.conflicts) << " bank conflicts; "
        << (r.counts.faults.empty() ? "no faults"
            : profile               ? "faults: see below"
                                    : "faults: see above")
        << (profile ? "\n" : " (more: ./run --profile)\n");
  }
  if (profile) {
    out << "\n";
    print_watch_report(out, r.counts);
    if (m.read_bytes + m.write_bytes > 0) {
      print_traffic(out, r.counts, {m.read_bytes, m.write_bytes}, least_traffic(r.problem, r.step.direction));
    }
  }
}

std::string report_as_json(const RunReport& r) {
  const Model& m = r.model;
  JsonWriter json;
  json.begin_object();
  write_head(json, r);

  json.begin_object("check");
  json.value("verdict", verdict_name(verdict_of(r)));
  if (!r.checked) {
    json.value("message", "not checked (--no-check)");
  } else {
    if (const TensorCheck* t = worst_tensor(r.check)) {
      json.value("tensor", t->tensor);
      json.value("max_error", t->max_error);
      json.value("rms_error", t->rms_error);
      json.value("bound", t->max_bound);
      json.value("rms_bound", t->rms_bound);
      json.value("worst_index", t->worst_index);
    }
    for (const TensorCheck& t : r.check.tensors) {
      if (t.tensor == "LSE") json.value("lse_verdict", verdict_name(t.verdict));
    }
    json.value("message", r.check.message);
    json.begin_array("tensors");
    for (const TensorCheck& t : r.check.tensors) write_tensor_check(json, t);
    json.end_array();
  }
  json.end_object();

  if (r.time_ms) {
    json.begin_object("time_ms");
    json.value("median", r.time_ms->median);
    json.value("min", r.time_ms->min);
    json.value("max", r.time_ms->max);
    json.value("iters", r.iters);
    json.end_object();
    json.value("tflops", m.flops / (r.time_ms->median * 1e-3) * 1e-12);
    json.value("gb_per_s", m.min_bytes / (r.time_ms->median * 1e-3) * 1e-9);
  } else {
    json.null("time_ms");
    json.null("tflops");
    json.null("gb_per_s");
  }

  const auto value_or_null = [&](const char* key, double value) {
    value > 0 ? json.value(key, value) : json.null(key);
  };
  json.begin_object("model");
  json.value("flops", m.flops);
  json.value("min_bytes", m.min_bytes);
  json.value("read_bytes", m.read_bytes);
  json.value("write_bytes", m.write_bytes);
  json.value("workspace_bytes", m.workspace_bytes);
  json.value("intensity", m.intensity);
  value_or_null("peak_tflops", m.peak_tflops);
  value_or_null("peak_gb_per_s", m.peak_gb_per_s);
  value_or_null("least_ms", m.least_ms);
  if (m.ridge > 0) {
    json.value("bound_by", m.compute_bound ? "compute" : "memory");
  } else {
    json.null("bound_by");
  }
  json.end_object();

  write_counts(json, r.counts);
  json.end_object();
  return json.text();
}

std::string report_without_result(const RunReport& r, Verdict verdict, const std::string& reason) {
  JsonWriter json;
  json.begin_object();
  write_head(json, r);
  json.begin_object("check");
  json.value("verdict", verdict_name(verdict));
  json.value("message", reason);
  json.end_object();
  json.null("time_ms");
  json.null("tflops");
  write_counts(json, r.counts);
  json.end_object();
  return json.text();
}

}  // namespace flash
