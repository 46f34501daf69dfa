// 8 channels at a time as floats, whatever they lie in memory as.
#pragma once

#include "vectors.cuh"

DEVICE void load_lanes(const Element* from, float (&out)[LANES]) { widen(*reinterpret_cast<const uint4*>(from), out); }
DEVICE void load_lanes(const float* from, float (&out)[LANES]) { load_floats(from, out); }

DEVICE void store_lanes(const float (&x)[LANES], Element* to) { *reinterpret_cast<uint4*>(to) = narrow(x); }
DEVICE void store_lanes(const float (&x)[LANES], float* to) {
  reinterpret_cast<float4*>(to)[0] = make_float4(x[0], x[1], x[2], x[3]);
  reinterpret_cast<float4*>(to)[1] = make_float4(x[4], x[5], x[6], x[7]);
}
