// Elements from and to floats, and the bit tricks, one thread each.
#include "ptx.cuh"

extern "C" __global__ void narrow(const float* x, Element* out, int n) {
  for (int i = threadIdx.x; i < n; i += blockDim.x) out[i] = from_float(x[i]);
}

extern "C" __global__ void widen(const Element* x, float* out, int n) {
  for (int i = threadIdx.x; i < n; i += blockDim.x) out[i] = to_float(x[i]);
}

// Pairs, there and back with the halves swapped.
extern "C" __global__ void swap_pairs(const float2* x, float2* out, int n) {
  for (int i = threadIdx.x; i < n; i += blockDim.x) {
    float2 pair = unpack(pack(x[i].y, x[i].x));
    out[i] = make_float2(pair.x, pair.y);
  }
}

// out [6]
extern "C" __global__ void bits(u32* out, u32 x) {
  out[0] = static_cast<u32>(__popc(x));
  out[1] = static_cast<u32>(__clz(static_cast<int>(x)));
  out[2] = static_cast<u32>(__ffs(static_cast<int>(x)));
  out[3] = __brev(x);
  out[4] = __umulhi(x, 0x9e3779b9u);
  out[5] = __float_as_uint(__uint_as_float(x));
}
