// Vectors divided by their lengths, in place. One block of THREADS a vector.
#include "ptx.cuh"

constexpr int kWarps = THREADS / WARP;

DEVICE float block_sum(float value) {
  __shared__ float sums[kWarps];
#pragma unroll
  for (int step = WARP / 2; step > 0; step /= 2) value += __shfl_xor_sync(0xffffffffu, value, step);
  if (lane_id() == 0) sums[warp_id()] = value;
  __syncthreads();
  float total = 0.f;
#pragma unroll
  for (int warp = 0; warp < kWarps; warp++) total += sums[warp];
  return total;
}

// x float [vectors, size]. A vector shorter than `shortest` is divided by that.
extern "C" __global__ __launch_bounds__(THREADS) void l2_normalise(float* x, int size, float shortest) {
  let_next_kernel_begin();
  wait_for_previous_kernel();
  float* vector = x + static_cast<i64>(blockIdx.x) * size;
  float squares = 0.f;
  for (int i = threadIdx.x; i < size; i += THREADS) squares += vector[i] * vector[i];
  float factor = rsqrtf(block_sum(squares)), largest = 1.f / shortest;
  if (factor > largest) factor = largest;  // NaN stays
  for (int i = threadIdx.x; i < size; i += THREADS) vector[i] *= factor;
}
