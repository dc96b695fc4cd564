// The watcher against mistakes with TMA, mbarriers, named barriers and fences (async_kernels.cu), and what it counts.
#include "common/tests/catch.h"

#include <cstdlib>
#include <sstream>
#include <vector>

#include "common/base/error.h"
#include "common/device/counts.h"
#include "common/device/memory.h"
#include "common/device/print_counts.h"
#include "common/kernel/cuda.cuh"
#include "common/tests/watch_kernels.h"

#if FLASH_WATCH

namespace {

using namespace flash::watch_kernels;
using Fault = flash::WatchFault;
using flash::WatchReport;

WatchReport report_of(const FaultCase& c, bool faulty, int seed = 0) {
  setenv("EMU_SEED", std::to_string(seed).c_str(), 1);
  flash::reset_watch_report();
  try {
    c.run(faulty);
  } catch (const flash::Error&) {
    // The kernel was stopped; the report says why.
  }
  unsetenv("EMU_SEED");
  return flash::take_watch_report();
}

const FaultCase& named(const std::string& name) {
  for (const FaultCase& c : async_fault_cases()) {
    if (c.name == name) return c;
  }
  throw std::runtime_error("no case " + name);
}

std::string message_of(const std::string& name) {
  const WatchReport report = report_of(named(name), true);
  REQUIRE(!report.faults.empty());
  return report.faults[0].message;
}

}  // namespace

TEST_CASE("every mistake with asynchronous copies and barriers is found, in every schedule") {
  for (const FaultCase& c : async_fault_cases()) {
    for (int seed = 0; seed <= 20; ++seed) {
      INFO(c.name << ": " << c.what << ", EMU_SEED=" << seed);
      const WatchReport report = report_of(c, true, seed);
      bool found = false;
      for (const Fault& fault : report.faults) {
        INFO(fault.message);
        found |= fault.kind == c.kind;
        if (fault.kind != c.kind) {
          CHECK(c.has_consequences);
          continue;
        }
        if (!c.array.empty()) CHECK(fault.array == c.array);
        CHECK_THAT(fault.kernel, ContainsSubstring(c.name + "<true>"));
        CHECK(fault.here.file == "common/tests/async_kernels.cu");
        CHECK_THAT(fault.message, ContainsSubstring("async_kernels.cu:" + std::to_string(fault.here.line)));
        CHECK_THAT(fault.message, ContainsSubstring("thread"));
        if (c.kind == "race" || c.kind == "proxy" || !c.array.empty()) {  // both sides
          CHECK(fault.other.file == "common/tests/async_kernels.cu");
          CHECK_THAT(fault.message, ContainsSubstring("async_kernels.cu:" + std::to_string(fault.other.line)));
        }
      }
      CHECK(found);
    }
  }
}

TEST_CASE("a deadlock says who waits for which mbarrier, what it lacks, and why that may be") {
  const std::string parity = message_of("producer_starts_at_0");
  CHECK_THAT(parity, ContainsSubstring("nothing has ever arrived at mbarrier empty[0]") &&
                         ContainsSubstring("starts with parity 1") &&
                         ContainsSubstring("threads 0-63 wait at mbarrier_wait") &&
                         ContainsSubstring("for parity 0 of mbarrier full[0] (initialised at") &&
                         ContainsSubstring("its phase 0 has 0 of 2 arrivals") &&
                         ContainsSubstring("threads 65-95 have returned"));
  CHECK_THAT(message_of("expects_too_much"),
             ContainsSubstring("all arrivals of mbarrier full") && ContainsSubstring("only 256 of the 512 bytes"));
  CHECK_THAT(message_of("arrivals_missing"),
             ContainsSubstring("mbarrier empty[0]") && ContainsSubstring("lacks 1 arrival"));
  CHECK_THAT(message_of("barrier_never_full"), ContainsSubstring("threads 0-63 wait at named_sync of barrier 1") &&
                                                   ContainsSubstring("it has 64 of 96 threads") &&
                                                   ContainsSubstring("threads 64-95 have returned"));
}

TEST_CASE("a wrong descriptor is told by row and chunk") {
  CHECK_THAT(message_of("swizzles_differ"),
             ContainsSubstring("the descriptor of A") && ContainsSubstring("says a swizzle of 64 bytes, and TMA") &&
                 ContainsSubstring("wrote byte 0 of the dynamic shared memory with a swizzle of 128 bytes"));
  CHECK_THAT(message_of("leading_bytes_wrong"),
             ContainsSubstring("takes column 64, k 0 from byte 24576 of the dynamic shared memory") &&
                 ContainsSubstring("put row 64, chunk 0 of its box; but column 56, k 0 came from row 0, chunk 7: the "
                                   "leading bytes"));
  CHECK_THAT(message_of("stride_wrong"),
             ContainsSubstring("takes row 8, k 0 from byte 576") &&
                 ContainsSubstring("put row 4, chunk 0 of its box; but row 7, k 0 came from "
                                   "row 7, chunk 0: the stride"));
  CHECK_THAT(message_of("slab_of_a_forgotten"), ContainsSubstring("begins at row 1, chunk 0") &&
                                                    ContainsSubstring("at row 0, chunk 6") &&
                                                    ContainsSubstring("the step is wrong"));
  CHECK_THAT(message_of("step_of_b_wrong"), ContainsSubstring("The next 16 k are 16 rows further"));
}

TEST_CASE("wgmma's registers are told by line, both lines") {
  const auto both_lines = [](const std::string& name, const char* words) {
    const WatchReport report = report_of(named(name), true);
    REQUIRE(report.faults.size() == 1);
    CHECK(report.faults[0].other.file == "common/tests/async_kernels.cu");
    CHECK_THAT(report.faults[0].message, ContainsSubstring(words));
  };
  both_lines("accumulator_read_early", "reads accumulator 1");
  both_lines("accumulator_written_early", "writes accumulator 1");
  both_lines("a_written_early", "writes a register of A");
  both_lines("accumulator_not_fenced", "uses accumulator 0");
  both_lines("a_not_fenced", "uses a register of A");
  CHECK_THAT(message_of("never_fenced"), ContainsSubstring("no wgmma_fence() comes before the wgmma of"));
}

TEST_CASE("who waits for registers is told what they are short of") {
  CHECK_THAT(message_of("registers_of_one_warp"),
             ContainsSubstring("only 32 of the 128 threads of warpgroup 0 are at the registers_down_to of "
                               "common/tests/async_kernels.cu:") &&
                 ContainsSubstring("setmaxnreg needs all four warps") &&
                 ContainsSubstring("threads 32-127 have returned"));
  CHECK_THAT(message_of("registers_too_many"),
             ContainsSubstring("warpgroup 2 takes 9216 registers more at common/tests/async_kernels.cu:") &&
                 ContainsSubstring("240 a thread, and nobody gives as many: warpgroup 0 has 32, warpgroup 1 has 240, "
                                   "warpgroup 2 has 168 a thread, and 8192 are in the pool") &&
                 ContainsSubstring("a block of 384 threads gets at most 168 a thread"));
  CHECK_THAT(message_of("registers_up_to_less"),
             ContainsSubstring("registers_up_to<24>, and the threads of warpgroup 0 have 168 each") &&
                 ContainsSubstring("it can only go up"));
}

TEST_CASE("a load that wasn't waited for names its mbarrier, and the one that was waited for") {
  CHECK_THAT(message_of("wait_for_wrong_stage"), ContainsSubstring("a TMA load,") &&
                                                     ContainsSubstring("the copy's mbarrier full[1]") &&
                                                     ContainsSubstring("its last wait was for full[0]"));
}

TEST_CASE("an innermost coordinate between two chunks of 16 bytes is told with what a card says of it") {
  CHECK_THAT(message_of("load_at_byte_8"),
             ContainsSubstring("the TMA load has the innermost coordinate 2, which is byte 8") &&
                 ContainsSubstring("an illegal instruction was encountered"));
  CHECK_THAT(message_of("store_at_byte_8"),
             ContainsSubstring("the TMA store has the innermost coordinate 2, which is byte 8"));
  CHECK_THAT(message_of("add_at_byte_8"), ContainsSubstring("the TMA reduction has the innermost coordinate 2"));
}

TEST_CASE("a store where only a load may go is told with what would come of it") {
  CHECK_THAT(message_of("store_before_first_row"), ContainsSubstring("the coordinate -1 in dimension 1") &&
                                                       ContainsSubstring("an illegal instruction was encountered"));
  CHECK_THAT(message_of("store_over_ragged_rows"), ContainsSubstring("4 bytes behind each would be overwritten"));
}

TEST_CASE("copies, their bytes and sectors, arrivals, waits and named barriers are counted") {
  const auto counts_of = [](const std::string& name) { return report_of(named(name), false).total(); };
  // A ring of 8 tiles of 64 floats: one thread loads, two warps use them.
  const flash::Counts ring = counts_of("one_lane_arrives");
  CHECK(ring.tma_loads == 8);
  CHECK(ring.tma_global_bytes == 8 * 256);
  CHECK(ring.tma_shared_bytes == 8 * 256);
  CHECK(ring.global_read.bytes == 8 * 256);
  CHECK(ring.global_read.sectors == 8 * 256 / 32);
  CHECK(ring.global_read.requests == 0);
  CHECK(ring.mbarrier_arrivals == 8 + 2 * 8);
  CHECK(ring.mbarrier_waits == 8 + 64 * 8);
  // Half of the box is outside of the tensor: it counts in shared memory alone.
  const flash::Counts half = counts_of("expects_half_a_box");
  CHECK(half.tma_loads == 1);
  CHECK(half.tma_global_bytes == 128);
  CHECK(half.tma_shared_bytes == 256);
  CHECK(half.global_read.bytes == 128);
  CHECK(half.global_read.sectors == 4);
  const flash::Counts store = counts_of("store_rewritten");
  CHECK(store.tma_stores == 3);
  CHECK(store.tma_global_bytes == 3 * 256);
  CHECK(store.global_write.bytes == 3 * 256 + 64 * 4);
  CHECK(store.global_write.sectors == 3 * 8 + 8);
  CHECK(store.global_write.requests == 2);
  CHECK(counts_of("barrier_of_two_warps").named_barriers == 2);
  CHECK(counts_of("barrier_overtaken").named_barriers == 6);
}

TEST_CASE("products, their operands, and what else they keep busy are counted") {
  // [64, 128] times [128, 128] of 16-bit elements: 8 products; A and B come by TMA once.
  const WatchReport report = report_of(named("stride_wrong"), false);
  const flash::Counts slabs = report.total();
  CHECK(slabs.wgmmas == 8);
  CHECK(slabs.wgmma_flops == 2 * 64 * 128 * 128);
  CHECK(slabs.wgmma_operand_bytes == (64 + 128) * 128 * 2);
  const flash::ProductShares shares = flash::product_shares(slabs);
  CHECK(shares.operands == Approx(0.75));  // 16 + 32 clocks a product of 64
  CHECK(shares.tma == Approx(0.75));
  CHECK(shares.threads == 0);
  CHECK(shares.exps == 0);
  const std::string json = flash::watch_report_json(report);
  CHECK_THAT(json, ContainsSubstring("\"wgmmas\": 8, \"wgmma_flops\": 2097152, \"wgmma_operand_bytes\": 49152") &&
                       ContainsSubstring("\"product_shares\": {\"operands\": 0.75, \"tma\": 0.75, \"threads\": 0, "
                                         "\"exps\": 0}"));
  std::ostringstream page;
  flash::print_watch_report(page, report);
  CHECK_THAT(page.str(), ContainsSubstring("8 wgmma, 2.10 M FLOP by wgmma, 49152 bytes of operands\n") &&
                             ContainsSubstring("shared memory needs 150 % (operands 75 %, TMA 75 %, threads 0 %), the "
                                               "exponentials 0 %"));
  // From registers A costs shared memory nothing.
  const flash::Counts fragments = report_of(named("a_not_fenced"), false).total();
  CHECK(fragments.wgmmas == 2);
  CHECK(fragments.wgmma_operand_bytes == 2 * 64 * 16 * 2);
  CHECK_THAT(flash::watch_report_json(report_of(named("store_rewritten"), false)),
             ContainsSubstring("\"product_shares\": null"));
  flash::Counts softmax;  // a row of 128 scores of head_dim 64: products of 4 * 64 FLOP an exponential
  softmax.wgmma_flops = 128 * 4 * 64, softmax.exps = 128, softmax.shared_read.wavefronts = 2;
  CHECK(flash::product_shares(softmax).exps == Approx(1));
  CHECK(flash::product_shares(softmax).threads == Approx(0.25));
}

TEST_CASE("no correct twin with asynchronous copies and barriers is accused, in any schedule") {
  for (const FaultCase& c : async_fault_cases()) {
    for (int seed = 0; seed <= 20; ++seed) {
      INFO(c.name << ", EMU_SEED=" << seed);
      for (const Fault& fault : report_of(c, false, seed).faults) FAIL_CHECK(fault.message);
    }
  }
}

#endif
