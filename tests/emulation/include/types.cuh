// The product's types.cuh for a CPU: the same names.
#pragma once

#include "arithmetic.h"
#include "atomics.h"
#include "elements.h"
#include "fibers.h"
#include "launch.h"
#include "reductions.h"
#include "warp.h"

#ifdef ELEMENT_FP16
using Element = emulator::Half;
#else
using Element = emulator::Bfloat16;
#endif

struct alignas(4) Element2 {
  Element x, y;
};

#define SHARED_BYTES(name) u8* const name = emulator::shared.dynamic

#define DEVICE __device__ __forceinline__

constexpr int WARP = 32;

DEVICE float to_float(Element x) { return emulator::widen(x); }
DEVICE Element from_float(float x) {
  Element out;
  emulator::narrow(x, out);
  return out;
}
DEVICE u32 pack(float low, float high) { return from_float(low).bits | u32(from_float(high).bits) << 16; }
DEVICE float2 unpack(u32 word) { return {to_float(Element{u16(word)}), to_float(Element{u16(word >> 16)})}; }

DEVICE int lane_id() { return threadIdx.x % WARP; }
DEVICE int warp_id() { return threadIdx.x / WARP; }

DEVICE int ceil_div(int a, int b) { return (a + b - 1) / b; }
