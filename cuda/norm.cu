// RMSNorm (arXiv 1910.07467) of the float32 residual stream, with the addition of what the layer before left. One block of THREADS a token;
// its row stays in registers, so that each tensor is read once and written once.
//
// x float [tokens, HIDDEN], delta Element [tokens, HIDDEN], weight float [HIDDEN], out Element [tokens, HIDDEN]; HIDDEN is a multiple of 8.
#include "ptx.cuh"
#include "vectors.cuh"

constexpr int kGroups = HIDDEN / 4;  // of 4 channels: 16 bytes of x
constexpr int kItems = (kGroups + THREADS - 1) / THREADS;
constexpr int kWarps = THREADS / WARP;

DEVICE int group_of(int item) { return item * THREADS + static_cast<int>(threadIdx.x); }

DEVICE void load_row(const float* row, float4 (&out)[kItems]) {
#pragma unroll
  for (int i = 0; i < kItems; i++) {
    bool valid = group_of(i) < kGroups;
    out[i] = valid ? reinterpret_cast<const float4*>(row)[group_of(i)] : make_float4(0.f, 0.f, 0.f, 0.f);
  }
}

DEVICE void add_row(const Element* row, float4 (&sum)[kItems]) {
  uint2 words[kItems];
#pragma unroll
  for (int i = 0; i < kItems; i++) {
    bool valid = group_of(i) < kGroups;
    words[i] = valid ? reinterpret_cast<const uint2*>(row)[group_of(i)] : make_uint2(0u, 0u);
  }
#pragma unroll
  for (int i = 0; i < kItems; i++) {
    float4 delta = widen4(words[i]);
    sum[i] = make_float4(sum[i].x + delta.x, sum[i].y + delta.y, sum[i].z + delta.z, sum[i].w + delta.w);
  }
}

DEVICE void store_row(const float4 (&row)[kItems], float* out) {
#pragma unroll
  for (int i = 0; i < kItems; i++)
    if (group_of(i) < kGroups) reinterpret_cast<float4*>(out)[group_of(i)] = row[i];
}

// The block's total, in the same order whatever the batch.
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

DEVICE void normalise(const float4 (&row)[kItems], const float4 (&weight)[kItems], float eps, Element* out) {
  float squares = 0.f;
#pragma unroll
  for (int i = 0; i < kItems; i++)
    squares += row[i].x * row[i].x + row[i].y * row[i].y + row[i].z * row[i].z + row[i].w * row[i].w;
  float scale = rsqrtf(block_sum(squares) * (1.f / HIDDEN) + eps);
#pragma unroll
  for (int i = 0; i < kItems; i++) {
    float4 x = row[i], w = weight[i];
    float4 y = make_float4(x.x * scale * w.x, x.y * scale * w.y, x.z * scale * w.z, x.w * scale * w.w);
    if (group_of(i) < kGroups) reinterpret_cast<uint2*>(out)[group_of(i)] = narrow4(y);
  }
}

extern "C" __global__ __launch_bounds__(THREADS) void rms_norm(const float* x, const float* weight, Element* out, float eps) {
  const i64 at = static_cast<i64>(blockIdx.x) * HIDDEN;
  float4 row[kItems], weights[kItems];
  let_next_kernel_begin();
  load_row(weight, weights);
  wait_for_previous_kernel();
  load_row(x + at, row);
  normalise(row, weights, eps, out + at);
}

// x += delta, then the norm.
extern "C" __global__ __launch_bounds__(THREADS) void add_rms_norm(float* x, const Element* delta, const float* weight, Element* out,
                                                                   float eps) {
  const i64 at = static_cast<i64>(blockIdx.x) * HIDDEN;
  float4 row[kItems], weights[kItems];
  let_next_kernel_begin();
  load_row(weight, weights);
  wait_for_previous_kernel();
  load_row(x + at, row);
  add_row(delta + at, row);
  store_row(row, x + at);
  normalise(row, weights, eps, out + at);
}

// The norm of x + delta for the tokens logit_ids, int32 [rows]; out [rows, HIDDEN]. x stays as it is.
extern "C" __global__ __launch_bounds__(THREADS) void rms_norm_gathered(const float* x, const Element* delta, const int* logit_ids,
                                                                        const float* weight, Element* out, float eps) {
  float4 row[kItems], weights[kItems];
  let_next_kernel_begin();
  load_row(weight, weights);
  wait_for_previous_kernel();
  const i64 from = static_cast<i64>(logit_ids[blockIdx.x]) * HIDDEN;
  load_row(x + from, row);
  add_row(delta + from, row);
  normalise(row, weights, eps, out + static_cast<i64>(blockIdx.x) * HIDDEN);
}
