// main() of every test binary: Catch2's own, and a line of totals added to the file $FLASH_TEST_TOTALS for `make test`.
#if __has_include(<catch2/catch_test_macros.hpp>)  // Catch2 3
#include <catch2/catch_session.hpp>
#include <catch2/catch_test_case_info.hpp>
#include <catch2/reporters/catch_reporter_event_listener.hpp>
#include <catch2/reporters/catch_reporter_registrars.hpp>
using Listener = Catch::EventListenerBase;
#else  // Catch2 2
#define CATCH_CONFIG_RUNNER
#include <catch2/catch.hpp>
using Listener = Catch::TestEventListenerBase;
#endif

#include <cstdio>
#include <cstdlib>

namespace {

struct Totals : Listener {
  using Listener::Listener;
  void testRunEnded(const Catch::TestRunStats& stats) override {
    const char* path = std::getenv("FLASH_TEST_TOTALS");
    std::FILE* file = path ? std::fopen(path, "a") : nullptr;
    if (!file) return;
    std::fprintf(file, "%ld %ld\n", long(stats.totals.testCases.passed + stats.totals.testCases.failedButOk),
                 long(stats.totals.testCases.failed));
    std::fclose(file);
  }
};
CATCH_REGISTER_LISTENER(Totals)

}  // namespace

int main(int argc, char** argv) {
  Catch::Session session;
#if __has_include(<catch2/catch_test_macros.hpp>)
  session.configData().allowZeroTests = true;  // a file may hold tests for watched kernels alone
#endif
  return session.run(argc, argv);
}
