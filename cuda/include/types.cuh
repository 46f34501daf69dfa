// The names every kernel uses: sizes of integers, the model's element type, and how elements are packed in words.
#pragma once

#ifdef ELEMENT_FP16
#include <cuda_fp16.h>
using Element = __half;
using Element2 = __half2;
#else
#include <cuda_bf16.h>
using Element = __nv_bfloat16;
using Element2 = __nv_bfloat162;
#endif

using u8 = unsigned char;
using u32 = unsigned int;
using u64 = unsigned long long;
using i64 = long long;

// Dynamic shared memory, as bytes: what a launch asks for.
#define SHARED_BYTES(name) extern __shared__ __align__(1024) u8 name[]

#define DEVICE __device__ __forceinline__

constexpr int WARP = 32;

#ifdef ELEMENT_FP16
DEVICE float to_float(Element x) { return __half2float(x); }
DEVICE Element from_float(float x) { return __float2half_rn(x); }
DEVICE u32 pack(float low, float high) {
  Element2 both = __floats2half2_rn(low, high);
  return *reinterpret_cast<u32*>(&both);
}
DEVICE float2 unpack(u32 word) { return __half22float2(*reinterpret_cast<Element2*>(&word)); }
#else
DEVICE float to_float(Element x) { return __bfloat162float(x); }
DEVICE Element from_float(float x) { return __float2bfloat16_rn(x); }
DEVICE u32 pack(float low, float high) {
  Element2 both = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<u32*>(&both);
}
DEVICE float2 unpack(u32 word) { return __bfloat1622float2(*reinterpret_cast<Element2*>(&word)); }
#endif

DEVICE int lane_id() { return threadIdx.x % WARP; }
DEVICE int warp_id() { return threadIdx.x / WARP; }

DEVICE int ceil_div(int a, int b) { return (a + b - 1) / b; }
