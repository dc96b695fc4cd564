#include "common/emu/instructions/mbarrier.h"

#include "common/emu/run/worker.h"

#define HERE \
  CallSite { file, line, __builtin_return_address(0) }

namespace flash::emu {

void mbarrier_init(const void* barrier, unsigned arrivals, const char* file, int line) {
  current_worker()->engine().mbarriers.init(*current_thread(), barrier, arrivals, HERE);
}

void mbarrier_inval(const void* barrier, const char* file, int line) {
  current_worker()->engine().mbarriers.invalidate(*current_thread(), barrier, HERE);
}

void mbarrier_arrive(const void* barrier, bool expects, unsigned bytes, bool arrives, const char* file, int line) {
  Mbarriers& mbarriers = current_worker()->engine().mbarriers;
  const CallSite site = HERE;
  if (expects) mbarriers.expect(*current_thread(), barrier, bytes, site);
  if (arrives) mbarriers.arrive(*current_thread(), barrier, site);
}

bool mbarrier_wait(const void* barrier, unsigned parity, bool polls, const char* file, int line) {
  return current_worker()->wait_for_mbarrier(barrier, parity != 0, polls, HERE);
}

}  // namespace flash::emu
