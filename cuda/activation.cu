// SwiGLU's product (arXiv 2002.05202): silu(gate) * up. A block takes THREADS * 8 channels of one token.
//
// gate_up Element [tokens, 2 * INNER] (gates, then ups), out Element [tokens, INNER]; INNER is a multiple of 8.
#include "ptx.cuh"
#include "vectors.cuh"

DEVICE float silu(float x) { return x / (1.f + expf(-x)); }

extern "C" __global__ __launch_bounds__(THREADS) void silu_mul(const Element* gate_up, Element* out) {
  let_next_kernel_begin();
  wait_for_previous_kernel();
  const int channel = (static_cast<int>(blockIdx.y) * THREADS + static_cast<int>(threadIdx.x)) * LANES;
  if (channel >= INNER) return;
  const Element* token = gate_up + static_cast<i64>(blockIdx.x) * (2 * INNER) + channel;
  uint4 gate_words = *reinterpret_cast<const uint4*>(token), up_words = *reinterpret_cast<const uint4*>(token + INNER);
  float gate[LANES], up[LANES];
  widen(gate_words, gate);
  widen(up_words, up);
#pragma unroll
  for (int i = 0; i < LANES; i++) gate[i] = silu(gate[i]) * up[i];
  *reinterpret_cast<uint4*>(out + static_cast<i64>(blockIdx.x) * INNER + channel) = narrow(gate);
}
