// The words that CUDA adds to C++: qualifiers, vectors, and where a thread is.
#pragma once

#include <link.h>
#include <math.h>
#include <stdint.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <ucontext.h>

#include <type_traits>
#include <utility>

// The emulator's own inner loops are not slowed by the checks that kernels are compiled with.
#define UNCHECKED __attribute__((no_sanitize("undefined", "kernel-address")))

#define __global__
#define __device__
#define __host__
// All fibers of a block run on one thread of the system, so what is that thread's own is the block's own: one stretch of memory.
#define __shared__ static thread_local
#define __constant__ static
#define __grid_constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(bytes) __attribute__((aligned(bytes)))
#define alignas(bytes) __attribute__((aligned(bytes)))  // may stand behind __shared__

using u8 = unsigned char;
using u16 = unsigned short;
using u32 = unsigned int;
using u64 = unsigned long long;
using i64 = long long;

struct uint3 {
  u32 x, y, z;
};
struct dim3 {
  u32 x = 1, y = 1, z = 1;
};

#define VECTOR2(name, T)                              \
  struct alignas(2 * sizeof(T)) name {                \
    T x, y;                                           \
  };                                                  \
  inline name make_##name(T x, T y) { return {x, y}; }
#define VECTOR4(name, T)                                                  \
  struct alignas(sizeof(T) == 8 ? 16 : 4 * sizeof(T)) name {              \
    T x, y, z, w;                                                         \
  };                                                                      \
  inline name make_##name(T x, T y, T z, T w) { return {x, y, z, w}; }

VECTOR2(float2, float)
VECTOR2(double2, double)
VECTOR2(int2, int)
VECTOR2(uint2, u32)
VECTOR2(longlong2, i64)
VECTOR2(ulonglong2, u64)
VECTOR2(short2, short)
VECTOR2(ushort2, u16)
VECTOR2(uchar2, u8)
VECTOR4(float4, float)
VECTOR4(int4, int)
VECTOR4(uint4, u32)
VECTOR4(ushort4, u16)
VECTOR4(uchar4, u8)

#undef VECTOR2
#undef VECTOR4

// Set anew whenever another fiber goes on.
inline uint3 threadIdx, blockIdx;
inline dim3 blockDim, gridDim;
constexpr int warpSize = 32;
