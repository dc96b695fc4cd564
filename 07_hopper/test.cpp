// 07_hopper, all its landings: right everywhere, and each does what its chapter counts.
#include "common/check/check.h"
#include "common/problem/dtype.h"
#include "common/tests/catch.h"
#include "common/tests/step_tests.h"

using namespace flash;
using tests::make_problem;

namespace {

// ---- 7.1 ------------------------------------------------------------------------------------------------------------

// What the kernel was built with, seen from outside: a warp has 32 query rows, and a problem of one query and one key
// stores one whole tile of Q and of O with 1 key tile, and asks for ...
struct Tiles {
  int block_m, block_n;
};

}  // namespace

TEST_CASE("07.1 gives the reference's O and LSE on awkward problems") { tests::require_pass_awkward(); }
