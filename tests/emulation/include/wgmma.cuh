// The product's wgmma.cuh for a CPU: the same functions.
#pragma once

#include "products.h"
#include "types.cuh"

constexpr int WARPGROUP = 128;

inline u64 matrix_descriptor(const void* shared, u32 leading_bytes, u32 stride_bytes) {
  u64 start = (emulator::shared_offset(shared) & 0x3ffff) >> 4;
  return start | u64(leading_bytes >> 4) << 16 | u64(stride_bytes >> 4) << 32 | 1ull << 62;
}
inline u64 descriptor_plus(u64 descriptor, u32 bytes) { return descriptor + (bytes >> 4); }

inline void warpgroup_fence(SITE) {
  emulator::meet_warp(emulator::kFence, site, 0, [](int* const*, u32) { emulator::own_products().is_fenced = true; });
}
inline void warpgroup_commit(SITE) {
  emulator::meet_warp(emulator::kCommit, site, 0, [](int* const*, u32) { emulator::own_products().num_groups++; });
}
template <int kLeft>
void warpgroup_wait(SITE) {
  emulator::meet_warp(emulator::kWaitGroups, site, kLeft, [](int* const* lanes, u32) { emulator::finish_products(*lanes[0]); });
}
template <int kCount>
void hold(float (&)[kCount]) {}

template <int kSums>
void warpgroup_mma(float (&d)[kSums], u64 a, u64 b, bool add, SITE) {
  emulator::Operands mine = {d, {}, a, b, false, false, add, site};
  emulator::meet(0xffffffff, emulator::kProduct, site, mine, emulator::start_product<Element, 2 * kSums>);
}
template <int kSums>
void warpgroup_mma_transposed(float (&d)[kSums], const u32 (&a)[4], u64 b, SITE) {
  emulator::Operands mine = {d, {a[0], a[1], a[2], a[3]}, 0, b, true, true, true, site};
  emulator::meet(0xffffffff, emulator::kProduct, site, mine, emulator::start_product<Element, 2 * kSums>);
}

template <int kRegisters>
void take_registers() {
  static_assert(kRegisters % 8 == 0 && kRegisters >= 24 && kRegisters <= 256, "what setmaxnreg takes");
}
template <int kRegisters>
void give_registers() {
  static_assert(kRegisters % 8 == 0 && kRegisters >= 24 && kRegisters <= 256, "what setmaxnreg takes");
}
