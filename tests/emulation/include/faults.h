// A thread that touches memory which is not there, or never ends, fails like any other mistake, and says where.
#pragma once

#include "fibers.h"

namespace emulator {

// Only of the launch in progress.
inline UNCHECKED void fault(int number, siginfo_t* info, void* context) {
  if (!block.is_running) {  // not the kernel's fault: what there would be without us, at the second attempt
    if (number != SIGVTALRM) signal(number, SIG_DFL);
    return;
  }
#ifdef __x86_64__
  block.failed_at = u64(static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_RIP]);
#endif
  if (number == SIGSEGV || number == SIGBUS) fail("touched %p, where no memory is", info->si_addr);
  if (number == SIGVTALRM) fail("was running when the launch's time was over");
  fail("stopped by signal %d", number);
}

// For the length of a launch.
class FaultsAsFailures {
 public:
  // max_seconds: of the processor's time.
  explicit FaultsAsFailures(u32 max_seconds) {
    if (stack_ == nullptr) stack_ = static_cast<u8*>(malloc(kBytes));
    stack_t mine = {};
    mine.ss_sp = stack_;
    mine.ss_size = kBytes;
    sigaltstack(&mine, &old_stack_);
    struct sigaction action = {};
    action.sa_sigaction = fault;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
    for (int i = 0; i < kNumSignals; i++) sigaction(kSignals[i], &action, &old_[i]);
    itimerval alarm = {{0, 0}, {long(max_seconds), 0}};
    setitimer(ITIMER_VIRTUAL, &alarm, &old_alarm_);
  }
  ~FaultsAsFailures() {
    setitimer(ITIMER_VIRTUAL, &old_alarm_, nullptr);
    for (int i = 0; i < kNumSignals; i++) sigaction(kSignals[i], &old_[i], nullptr);
    sigaltstack(&old_stack_, nullptr);
  }

 private:
  static constexpr int kSignals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGVTALRM};
  static constexpr int kNumSignals = 5;
  static constexpr size_t kBytes = 64 << 10;
  static inline u8* stack_;
  stack_t old_stack_;
  itimerval old_alarm_;
  struct sigaction old_[kNumSignals];
};

}  // namespace emulator
