// A thread that touches memory which is not there fails like any other mistake, and says where.
#pragma once

#include "fibers.h"

namespace emulator {

// Only of the launch in progress.
inline UNCHECKED void fault(int signal, siginfo_t* info, void* context) {
#ifdef __x86_64__
  block.failed_at = u64(static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_RIP]);
#endif
  if (signal == SIGSEGV || signal == SIGBUS) fail("touched %p, where no memory is", info->si_addr);
  fail("stopped by signal %d", signal);
}

// For the length of a launch.
class FaultsAsFailures {
 public:
  FaultsAsFailures() {
    if (stack_ == nullptr) stack_ = static_cast<u8*>(malloc(kBytes));
    stack_t mine = {};
    mine.ss_sp = stack_;
    mine.ss_size = kBytes;
    sigaltstack(&mine, &old_stack_);
    struct sigaction action = {};
    action.sa_sigaction = fault;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
    for (int i = 0; i < kNumSignals; i++) sigaction(kSignals[i], &action, &old_[i]);
  }
  ~FaultsAsFailures() {
    for (int i = 0; i < kNumSignals; i++) sigaction(kSignals[i], &old_[i], nullptr);
    sigaltstack(&old_stack_, nullptr);
  }

 private:
  static constexpr int kSignals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL};
  static constexpr int kNumSignals = 4;
  static constexpr size_t kBytes = 64 << 10;
  static inline u8* stack_;
  stack_t old_stack_;
  struct sigaction old_[kNumSignals];
};

}  // namespace emulator
