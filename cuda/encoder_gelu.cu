// GELU (arXiv 1606.08415), alone and as a gate (GeGLU, arXiv 2002.05202). TANH: the approximation of that paper, else exact.
// A thread takes ITEMS groups of 8 channels, their loads in flight together; INNER is a multiple of 8.
#include "ptx.cuh"
#include "vectors.cuh"

#if TANH
// x (1 + tanh(y)) / 2 = x / (1 + e^-2y), y = sqrt(2 / pi) (x + 0.044715 x^3).
DEVICE float gelu_of(float x) {
  constexpr float kFactor = -2.302208198f;  // -2 log2(e) sqrt(2 / pi)
  return __fdividef(x, 1.f + exp2_fast(x * fmaf(x * x, 0.044715f * kFactor, kFactor)));
}
#else
// max(x, 0) - |x| q, where q is how much of the normal distribution lies beyond |x|: its binary logarithm is nearly a polynomial. This one
// leaves an error of 4.4e-7 at most (and of 3e-5 of the result near 0), and falls ever faster.
DEVICE float gelu_of(float x) {
  float size = fminf(fabsf(x), 16.f), log = -4.73294055e-4f;
  log = fmaf(log, size, 7.08446160e-3f);
  log = fmaf(log, size, -5.18271700e-2f);
  log = fmaf(log, size, -4.59992643e-1f);
  log = fmaf(log, size, -1.15078777f);
  log = fmaf(log, size, -1.00003763f);
  return fmaf(x + fabsf(x), 0.5f, -size * exp2_fast(log));  // the sum keeps NaN and infinities
}
#endif

DEVICE int group_of(int item) { return (static_cast<int>(blockIdx.x) * ITEMS + item) * THREADS + static_cast<int>(threadIdx.x); }

// 8 channels as they lie in memory.
DEVICE uint4* group_at(Element* all, i64 group) { return reinterpret_cast<uint4*>(all) + group; }
DEVICE const uint4* group_at(const Element* all, i64 group) { return reinterpret_cast<const uint4*>(all) + group; }

// x Element [num_groups * 8], in place.
extern "C" __global__ __launch_bounds__(THREADS) void gelu(Element* x, int num_groups) {
  let_next_kernel_begin();
  wait_for_previous_kernel();
  uint4 groups[ITEMS];
#pragma unroll
  for (int i = 0; i < ITEMS; i++)
    if (group_of(i) < num_groups) groups[i] = *group_at(x, group_of(i));
#pragma unroll
  for (int i = 0; i < ITEMS; i++) {
    if (group_of(i) >= num_groups) continue;
    float values[LANES];
    widen(groups[i], values);
#pragma unroll
    for (int lane = 0; lane < LANES; lane++) values[lane] = gelu_of(values[lane]);
    *group_at(x, group_of(i)) = narrow(values);
  }
}

// gate_up Element [tokens, 2 * INNER] (gates, then ups), out Element [tokens, INNER]; num_groups: of out.
extern "C" __global__ __launch_bounds__(THREADS) void gelu_mul(const Element* gate_up, Element* out, int num_groups) {
  constexpr int kTokenGroups = INNER / LANES;
  let_next_kernel_begin();
  wait_for_previous_kernel();
  uint4 gates[ITEMS], ups[ITEMS];
#pragma unroll
  for (int i = 0; i < ITEMS; i++) {
    if (group_of(i) >= num_groups) continue;
    int token = group_of(i) / kTokenGroups, group = group_of(i) % kTokenGroups;
    const uint4* from = group_at(gate_up, static_cast<i64>(token) * (2 * kTokenGroups) + group);
    gates[i] = from[0];
    ups[i] = from[kTokenGroups];
  }
#pragma unroll
  for (int i = 0; i < ITEMS; i++) {
    if (group_of(i) >= num_groups) continue;
    float values[LANES], factors[LANES];
    widen(gates[i], values);
    widen(ups[i], factors);
#pragma unroll
    for (int lane = 0; lane < LANES; lane++) values[lane] = gelu_of(values[lane]) * factors[lane];
    *group_at(out, group_of(i)) = narrow(values);
  }
}
