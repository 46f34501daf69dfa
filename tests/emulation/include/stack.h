// Stacks of fibers, and going from one to another without a system call where the processor is known (System V ABI for x86-64).
#pragma once

#include "language.h"

namespace emulator {

constexpr int kMaxThreads = 1024;
constexpr size_t kStackBytes = 256 << 10;

// Room for all threads' stacks; what is never touched takes no memory.
inline u8* stacks() {
  static u8* place;
  if (place != nullptr) return place;
  void* mapped = mmap(nullptr, kMaxThreads * kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapped == MAP_FAILED) abort();
  return place = static_cast<u8*>(mapped);
}

inline u8* stack_of(int thread) { return stacks() + thread * kStackBytes; }

}  // namespace emulator

#if defined(__x86_64__) && !defined(EMULATE_UCONTEXT)

// What a function must keep for its caller lies on the stack; a context is the stack's pointer.
asm(R"(
.pushsection .text
.local emulator_switch
.type emulator_switch, @function
emulator_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq (%rsi), %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size emulator_switch, . - emulator_switch
.popsection
)");

namespace emulator {

struct Context {
  void* stack_pointer;
};

extern "C" __attribute__((visibility("hidden"))) void emulator_switch(Context* from, const Context* to);

inline void switch_context(Context& from, const Context& to) { emulator_switch(&from, &to); }

// The first switch to it enters `run`, which never returns.
inline void prepare(Context& context, u8* stack, void (*run)()) {
  void** top = reinterpret_cast<void**>(stack + kStackBytes);
  *--top = nullptr;  // where `run` would return to; the stack is aligned as after a call
  *--top = reinterpret_cast<void*>(run);
  for (int i = 0; i < 6; i++) *--top = nullptr;
  context.stack_pointer = top;
}

}  // namespace emulator

#else

namespace emulator {

struct Context {
  ucontext_t saved;
};

inline void switch_context(Context& from, const Context& to) { swapcontext(&from.saved, &to.saved); }

inline void prepare(Context& context, u8* stack, void (*run)()) {
  getcontext(&context.saved);
  context.saved.uc_stack.ss_sp = stack;
  context.saved.uc_stack.ss_size = kStackBytes;
  context.saved.uc_link = nullptr;
  makecontext(&context.saved, run, 0);
}

}  // namespace emulator

#endif
