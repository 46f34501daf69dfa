// Layer norm (arXiv 1607.06450) of rows that stay in registers: HIDDEN channels, a multiple of 8, of TOKEN_WARPS warps.
// Rows of one warp share a block, four of them, and never wait for each other.
#pragma once

#include "lanes.cuh"

constexpr int kTokenThreads = TOKEN_WARPS * WARP;
constexpr int kItems = (HIDDEN / LANES + kTokenThreads - 1) / kTokenThreads;
constexpr int kBlockTokens = TOKEN_WARPS == 1 ? 4 : 1;
constexpr int kBlockThreads = kBlockTokens * kTokenThreads;

// One thread's share of a token's channels; zeros behind the last.
using Row = float[kItems][LANES];

DEVICE int own_token() { return static_cast<int>(blockIdx.x) * kBlockTokens + static_cast<int>(threadIdx.x) / kTokenThreads; }
DEVICE int channel_of(int item) { return (item * kTokenThreads + static_cast<int>(threadIdx.x) % kTokenThreads) * LANES; }

template <typename T>
DEVICE void load_row(const T* from, Row& row) {
#pragma unroll
  for (int i = 0; i < kItems; i++) {
    if (channel_of(i) < HIDDEN) {
      load_lanes(from + channel_of(i), row[i]);
    } else {
#pragma unroll
      for (int lane = 0; lane < LANES; lane++) row[i][lane] = 0.f;
    }
  }
}

template <typename T>
DEVICE void store_row(const Row& row, T* to) {
#pragma unroll
  for (int i = 0; i < kItems; i++)
    if (channel_of(i) < HIDDEN) store_lanes(row[i], to + channel_of(i));
}

DEVICE void add_row(const Row& other, Row& row) {
#pragma unroll
  for (int i = 0; i < kItems; i++)
#pragma unroll
    for (int lane = 0; lane < LANES; lane++) row[i][lane] += other[i][lane];
}

// Over the token's threads, in the same order whatever the batch.
DEVICE float token_sum(float value) {
#pragma unroll
  for (int step = WARP / 2; step > 0; step /= 2) value += __shfl_xor_sync(0xffffffffu, value, step);
  if (TOKEN_WARPS == 1) return value;
  __shared__ float sums[TOKEN_WARPS];
  __syncthreads();  // the sums before these have been read
  if (lane_id() == 0) sums[warp_id() % TOKEN_WARPS] = value;
  __syncthreads();
  float total = 0.f;
#pragma unroll
  for (int warp = 0; warp < TOKEN_WARPS; warp++) total += sums[warp];
  return total;
}

// weight and bias float [HIDDEN]; bias may be null. The variance is of the deviations themselves: a large mean takes nothing from it.
DEVICE void normalise(Row& row, const float* weight, const float* bias, float eps) {
  float sum = 0.f, squares = 0.f;
#pragma unroll
  for (int i = 0; i < kItems; i++)
#pragma unroll
    for (int lane = 0; lane < LANES; lane++) sum += row[i][lane];
  float mean = token_sum(sum) * (1.f / HIDDEN);
#pragma unroll
  for (int i = 0; i < kItems; i++)
#pragma unroll
    for (int lane = 0; lane < LANES; lane++) {
      row[i][lane] -= mean;
      if (channel_of(i) < HIDDEN) squares += row[i][lane] * row[i][lane];
    }
  float scale = rsqrtf(token_sum(squares) * (1.f / HIDDEN) + eps);
#pragma unroll
  for (int i = 0; i < kItems; i++) {
    if (channel_of(i) >= HIDDEN) continue;
    float factors[LANES], offsets[LANES] = {};
    load_floats(weight + channel_of(i), factors);
    if (bias) load_floats(bias + channel_of(i), offsets);
#pragma unroll
    for (int lane = 0; lane < LANES; lane++) row[i][lane] = row[i][lane] * scale * factors[lane] + offsets[lane];
  }
}
