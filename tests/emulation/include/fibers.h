// A block's threads as fibers: each runs until it has to wait, then another goes on. Which one is drawn by lot, so that code which
// leans on an order that no barrier gives is likely to show it.
#pragma once

#include "stack.h"

namespace emulator {

constexpr int kWarp = 32;

// Where in a source a thread waits.
struct Site {
  const char* file;
  int line;
};

struct Thread {
  Context context;
  uint3 index;
  int id;
  bool exited;
  const char* waits_for;  // for people; null while it runs or may run
  const void* waits_on;   // what release() looks for
  Site site;
};

struct Block {
  Thread threads[kMaxThreads];
  int num_threads, num_exited;
  Thread* current;
  u16 ready[kMaxThreads];
  int num_ready;
  Context launcher;
  bool is_running;       // threads, rather than the launch
  void (*ask)(void*);    // what a thread wants done on the launch's stack
  void* ask_about;
  u64 failed_at;         // an address in the kernel's code, or 0
  void (*run_thread)();       // the kernel, called with its arguments
  void (*deliver_late)(bool);  // copies under way, see copies.h
  void (*thread_left)();      // barriers' and meetings' part of an exit
  u64 lot;
  char failure[2048];
};

inline Block block;

inline u32 draw(u32 limit) {
  block.lot ^= block.lot << 13;
  block.lot ^= block.lot >> 7;
  block.lot ^= block.lot << 17;
  return u32((block.lot >> 32) * limit >> 32);
}

inline int append(int used, const char* format, ...) __attribute__((format(printf, 2, 3)));
inline int append(int used, const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  int room = int(sizeof(block.failure)) - used;
  int written = vsnprintf(block.failure + used, size_t(room), format, arguments);
  va_end(arguments);
  return used + (written < room ? written : room - 1);
}

inline int append_place(int used, const Thread& thread) {
  return append(used, "thread %u of block (%u, %u, %u)", thread.index.x, blockIdx.x, blockIdx.y, blockIdx.z);
}

// Leaves the block's fibers where they are and goes back to the launch.
[[noreturn]] inline void abandon() {
  switch_context(block.current->context, block.launcher);
  __builtin_unreachable();
}

// The current thread did what no thread may do.
template <class... Words>
[[noreturn]] inline void fail(const char* format, Words... words) {
  int used = append_place(0, *block.current);
  used = append(used, " ");
  char text[1024];
  snprintf(text, sizeof(text), format, words...);
  append(used, "%s", text);
  abandon();
}

// Every thread waits for another.
[[noreturn]] inline void fail_blocked() {
  int used = 0, num_told = 0;
  for (int i = 0; i < block.num_threads; i++) {
    const Thread &thread = block.threads[i], &before = block.threads[i > 0 ? i - 1 : 0];
    if (thread.exited) continue;
    if (i > 0 && !before.exited && before.waits_for == thread.waits_for && before.site.line == thread.site.line) continue;
    if (num_told++ == 8) break;
    used = append_place(append(used, num_told > 1 ? "; " : ""), thread);
    used = append(used, " waits forever for %s at %s:%d", thread.waits_for, thread.site.file, thread.site.line);
  }
  append(used, " (%d of %d threads have ended)", block.num_exited, block.num_threads);
  abandon();
}

UNCHECKED inline void make_ready(Thread& thread) {
  thread.waits_for = nullptr;
  thread.waits_on = nullptr;
  block.ready[block.num_ready++] = u16(thread.id);
}

UNCHECKED inline Thread* pick() {
  if (block.num_ready == 0 || draw(16) == 0) block.deliver_late(block.num_ready == 0);
  if (block.num_ready == 0) return nullptr;
  u16& drawn = block.ready[draw(u32(block.num_ready))];
  Thread* thread = &block.threads[drawn];
  drawn = block.ready[--block.num_ready];
  return thread;
}

UNCHECKED inline void go_on(Thread& next) {
  Thread* me = block.current;
  if (&next == me) return;
  block.current = &next;
  threadIdx = next.index;
  switch_context(me->context, next.context);
}

// Others run until release(on), or whoever knows the thread, makes it ready.
UNCHECKED inline __attribute__((noinline)) void wait(const char* what, const void* on, Site site) {
  block.current->waits_for = what;
  block.current->waits_on = on;
  block.current->site = site;
  Thread* next = pick();
  if (next == nullptr) fail_blocked();
  go_on(*next);
}

UNCHECKED inline void release(const void* on) {
  for (int i = 0; i < block.num_threads; i++)
    if (block.threads[i].waits_on == on) make_ready(block.threads[i]);
}

// Entered once a thread and block.
inline void thread_main() {
  block.run_thread();
  block.current->exited = true;
  block.num_exited++;
  block.thread_left();
  Thread* next = pick();
  if (next != nullptr) {
    go_on(*next);
  } else if (block.num_exited < block.num_threads) {
    fail_blocked();
  } else {
    switch_context(block.current->context, block.launcher);
  }
  __builtin_unreachable();
}

inline void start_threads() {
  block.num_exited = block.num_ready = 0;
  block.failure[0] = 0;
  block.failed_at = 0;
  block.ask = nullptr;
  for (int i = 0; i < block.num_threads; i++) {
    Thread& thread = block.threads[i];
    thread.id = i;
    thread.index = {u32(i), 0, 0};
    thread.exited = false;
    prepare(thread.context, stack_of(i), thread_main);
    make_ready(thread);
  }
}

// Until all threads have ended, or one failed.
inline void run_threads() {
  start_threads();
  block.current = pick();
  threadIdx = block.current->index;
  block.is_running = true;
  switch_context(block.launcher, block.current->context);
  while (block.ask != nullptr) {
    block.is_running = false;
    block.ask(block.ask_about);
    block.ask = nullptr;
    block.is_running = true;
    switch_context(block.launcher, block.current->context);
  }
  block.is_running = false;
}

}  // namespace emulator
