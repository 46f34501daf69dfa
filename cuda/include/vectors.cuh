// 16 bytes of elements as floats, and back.
#pragma once

#include "types.cuh"

constexpr int LANES = 8;  // elements in 16 bytes

DEVICE void widen(uint4 words, float (&out)[LANES]) {
  const u32 packed[LANES / 2] = {words.x, words.y, words.z, words.w};
#pragma unroll
  for (int i = 0; i < LANES / 2; i++) {
    float2 both = unpack(packed[i]);
    out[2 * i] = both.x;
    out[2 * i + 1] = both.y;
  }
}

DEVICE uint4 narrow(const float (&x)[LANES]) {
  return make_uint4(pack(x[0], x[1]), pack(x[2], x[3]), pack(x[4], x[5]), pack(x[6], x[7]));
}

// 4 elements in 8 bytes: what goes with 16 bytes of floats.
DEVICE float4 widen4(uint2 words) {
  float2 low = unpack(words.x), high = unpack(words.y);
  return make_float4(low.x, low.y, high.x, high.y);
}

DEVICE uint2 narrow4(float4 x) { return make_uint2(pack(x.x, x.y), pack(x.z, x.w)); }

DEVICE void load_floats(const float* from, float (&out)[LANES]) {
  float4 low = *reinterpret_cast<const float4*>(from), high = *reinterpret_cast<const float4*>(from + 4);
  out[0] = low.x, out[1] = low.y, out[2] = low.z, out[3] = low.w;
  out[4] = high.x, out[5] = high.y, out[6] = high.z, out[7] = high.w;
}
