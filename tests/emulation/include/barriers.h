// Barriers: the block's own, those among some of its warps, and those in shared memory that copies complete on.
#pragma once

#include "warp.h"

namespace emulator {

struct NamedBarrier {
  int num_expected, num_arrived;
};

constexpr int kNumBarriers = 16;
inline NamedBarrier named_barriers[kNumBarriers];
inline int num_at_block_barrier;
inline constexpr char kSyncThreads[] = "__syncthreads", kNamed[] = "a named barrier", kPhase[] = "a barrier's phase";

// The lanes of a warp come to it at one place of the program.
inline void check_sites() {
  for (int i = 1; i < block.num_threads; i++) {
    const Thread &thread = block.threads[i], &before = block.threads[i - 1];
    if (i % kWarp == 0 || thread.exited || before.exited) continue;
    if (thread.site.line != before.site.line)
      fail("is in a warp whose lanes wait in __syncthreads at different places, lines %d and %d of %s and %s", before.site.line,
           thread.site.line, before.site.file, thread.site.file);
  }
}

inline void open_block_barrier() {
  if (num_at_block_barrier == 0 || num_at_block_barrier < block.num_threads - block.num_exited) return;
  num_at_block_barrier = 0;
  check_sites();
  release(&num_at_block_barrier);
}

inline void arrive_named(int id, int num_threads, Site site) {
  if (id < 1 || id >= kNumBarriers || num_threads % kWarp != 0 || num_threads < kWarp)
    fail("names barrier %d for %d threads at %s:%d", id, num_threads, site.file, site.line);
  NamedBarrier& barrier = named_barriers[id];
  if (barrier.num_arrived == 0) barrier.num_expected = num_threads;
  if (barrier.num_expected != num_threads)
    fail("expects %d threads at barrier %d at %s:%d, others expect %d", num_threads, id, site.file, site.line, barrier.num_expected);
  barrier.num_arrived++;
}

// True: this thread was the last, and the barrier is fresh again.
inline bool open_named(int id) {
  NamedBarrier& barrier = named_barriers[id];
  if (barrier.num_arrived < barrier.num_expected) return false;
  barrier.num_arrived = 0;
  release(&barrier);
  return true;
}

// Lies in the 8 bytes that a kernel sets aside.
struct Phase {
  u64 parity : 1, num_expected : 12, num_pending : 12, mark : 11;
  i64 num_bytes : 28;  // that copies have yet to bring; below zero if they are early
};
static_assert(sizeof(Phase) == sizeof(u64), "takes the place of a u64");
constexpr u64 kMark = 0x2b5;

inline Phase load_phase(const u64* barrier, Site site) {
  Phase phase;
  memcpy(&phase, barrier, sizeof(phase));
  if (phase.mark != kMark) fail("uses a barrier that was not made, or was overwritten, at %s:%d", site.file, site.line);
  return phase;
}

inline void store_phase(u64* barrier, Phase phase) {
  bool is_over = phase.num_pending == 0 && phase.num_bytes == 0;
  if (is_over) {
    phase.parity ^= 1;
    phase.num_pending = phase.num_expected;
  }
  memcpy(barrier, &phase, sizeof(phase));
  if (is_over) release(barrier);
}

inline void arrive_phase(u64* barrier, u32 num_bytes, Site site) {
  Phase phase = load_phase(barrier, site);
  if (phase.num_pending == 0) fail("arrives at a barrier once too often in a phase at %s:%d", site.file, site.line);
  phase.num_bytes += i64(num_bytes);
  phase.num_pending--;
  store_phase(barrier, phase);
}

inline void complete_bytes(u64* barrier, u32 num_bytes, Site site) {
  Phase phase = load_phase(barrier, site);
  phase.num_bytes -= i64(num_bytes);
  store_phase(barrier, phase);
}

inline void reset_barriers() {
  num_at_block_barrier = 0;
  memset(named_barriers, 0, sizeof(named_barriers));
  for (Warp& warp : warps) warp.num_meetings = 0;
}

}  // namespace emulator

inline void __syncthreads(SITE) {
  emulator::block.current->site = site;
  if (++emulator::num_at_block_barrier == emulator::block.num_threads - emulator::block.num_exited)
    return emulator::open_block_barrier();
  emulator::wait(emulator::kSyncThreads, &emulator::num_at_block_barrier, site);
}
