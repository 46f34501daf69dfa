// The product's ptx.cuh for a CPU: the same functions.
#pragma once

#include "copies.h"
#include "matrix.h"
#include "types.cuh"

inline u32 shared_address(const void* pointer) { return emulator::shared_offset(pointer); }

inline float exp2_fast(float x) {
  float y = exp2f(x);
  return y < 0x1p-126f ? 0.0f : y;
}

inline u64 global_timer() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return u64(now.tv_sec) * 1000000000 + u64(now.tv_nsec);
}

inline uint4 load_streamed16(const void* global, SITE) {
  emulator::check_aligned(global, "load_streamed16", site);
  uint4 out;
  memcpy(&out, global, sizeof(out));
  return out;
}

inline void copy_async16(void* shared, const void* global, bool valid, SITE) {
  emulator::check_aligned(shared, "copy_async16", site);
  if (valid) emulator::check_aligned(global, "copy_async16", site);
  emulator::shared_offset(shared);
  if (valid) emulator::check(reinterpret_cast<u64>(global), 16, "copies", nullptr);
  emulator::ThreadCopies& own = emulator::own_copies();
  emulator::Copy copy = {shared, valid ? global : nullptr, 16, nullptr, own.num_groups, false, site};
  if (emulator::draw(2) == 0) {
    emulator::make_copy(copy);
  } else {
    own.copies.push(copy, "copies");
  }
}
inline void copy_async_commit() { emulator::own_copies().num_groups++; }
template <int kLeft>
void copy_async_wait() {
  emulator::wait_groups(kLeft);
}

inline void barrier_init(u64* barrier, u32 num_arrivals, SITE) {
  emulator::shared_offset(barrier);
  if (num_arrivals == 0 || num_arrivals > emulator::kMaxThreads)
    emulator::fail("makes a barrier for %u arrivals at %s:%d", num_arrivals, site.file, site.line);
  emulator::Phase phase = {};
  phase.num_expected = phase.num_pending = num_arrivals;
  phase.mark = emulator::kMark;
  memcpy(barrier, &phase, sizeof(phase));
}
inline void barrier_init_fence() {}
inline void barrier_arrive_expect(u64* barrier, u32 bytes, SITE) { emulator::arrive_phase(barrier, bytes, site); }
inline void barrier_arrive(u64* barrier, SITE) { emulator::arrive_phase(barrier, 0, site); }
inline void barrier_wait(u64* barrier, u32 parity, SITE) {
  while (emulator::load_phase(barrier, site).parity == (parity & 1)) emulator::wait(emulator::kPhase, barrier, site);
}
inline void bulk_load(void* shared, const void* global, u32 bytes, u64* barrier, SITE) {
  emulator::start_bulk({shared, global, bytes, barrier, 0, false, site});
}
inline void async_proxy_fence() { emulator::note_fence(); }

inline void named_barrier_sync(int id, int num_threads, SITE) {
  emulator::arrive_named(id, num_threads, site);
  if (!emulator::open_named(id)) emulator::wait(emulator::kNamed, &emulator::named_barriers[id], site);
}
inline void named_barrier_arrive(int id, int num_threads, SITE) {
  emulator::arrive_named(id, num_threads, site);
  emulator::open_named(id);
}

inline void load_matrix_x4(u32 (&out)[4], const void* row, SITE) { emulator::load_matrix(out, row, false, site); }
inline void load_matrix_x4_transposed(u32 (&out)[4], const void* row, SITE) { emulator::load_matrix(out, row, true, site); }

inline void mma_16816(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1, SITE) {
  emulator::Fragments<Element> mine = {{a[0], a[1], a[2], a[3]}, {b0, b1}, {d[0], d[1], d[2], d[3]}};
  emulator::meet(0xffffffff, emulator::kMma, site, mine, emulator::multiply<Element>);
  memcpy(d, mine.d, sizeof(mine.d));
}

inline void wait_for_previous_kernel() {}
inline void let_next_kernel_begin() {}
