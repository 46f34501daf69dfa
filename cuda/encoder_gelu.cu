// GELU (arXiv 1606.08415), alone and as a gate (GeGLU, arXiv 2002.05202). TANH: the approximation of that paper, else exact.
// A thread takes ITEMS groups of 8 channels, their loads in flight together; INNER is a multiple of 8.
#include "lanes.cuh"
#include "ptx.cuh"

DEVICE float gelu_of(float x) {
#if TANH
  float inner = 0.7978845608f * (x + 0.044715f * x * x * x);  // sqrt(2 / pi)
  return x / (1.f + expf(-2.f * inner));                      // (1 + tanh(inner)) / 2
#else
  return 0.5f * x * (1.f + erff(x * 0.7071067812f));
#endif
}

DEVICE int group_of(int item) { return (static_cast<int>(blockIdx.x) * ITEMS + item) * THREADS + static_cast<int>(threadIdx.x); }

// x Element [num_groups * 8], in place.
extern "C" __global__ __launch_bounds__(THREADS) void gelu(Element* x, int num_groups) {
  let_next_kernel_begin();
  wait_for_previous_kernel();
  float values[ITEMS][LANES];
#pragma unroll
  for (int i = 0; i < ITEMS; i++)
    if (group_of(i) < num_groups) load_lanes(x + static_cast<i64>(group_of(i)) * LANES, values[i]);
#pragma unroll
  for (int i = 0; i < ITEMS; i++) {
    if (group_of(i) >= num_groups) continue;
#pragma unroll
    for (int lane = 0; lane < LANES; lane++) values[i][lane] = gelu_of(values[i][lane]);
    store_lanes(values[i], x + static_cast<i64>(group_of(i)) * LANES);
  }
}

// gate_up Element [tokens, 2 * INNER] (gates, then ups), out Element [tokens, INNER]; num_groups: of out.
extern "C" __global__ __launch_bounds__(THREADS) void gelu_mul(const Element* gate_up, Element* out, int num_groups) {
  constexpr int kTokenGroups = INNER / LANES;
  let_next_kernel_begin();
  wait_for_previous_kernel();
  float gates[ITEMS][LANES], ups[ITEMS][LANES];
#pragma unroll
  for (int i = 0; i < ITEMS; i++) {
    if (group_of(i) >= num_groups) continue;
    int token = group_of(i) / kTokenGroups, channel = group_of(i) % kTokenGroups * LANES;
    const Element* from = gate_up + static_cast<i64>(token) * (2 * INNER) + channel;
    load_lanes(from, gates[i]);
    load_lanes(from + INNER, ups[i]);
  }
#pragma unroll
  for (int i = 0; i < ITEMS; i++) {
    if (group_of(i) >= num_groups) continue;
#pragma unroll
    for (int lane = 0; lane < LANES; lane++) gates[i][lane] = gelu_of(gates[i][lane]) * ups[i][lane];
    store_lanes(gates[i], out + static_cast<i64>(group_of(i)) * LANES);
  }
}
