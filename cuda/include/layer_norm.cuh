// Layer norm (arXiv 1607.06450) of rows that stay in registers: HIDDEN channels, a multiple of 8, of TOKEN_WARPS warps. One warp can have
// several rows, whose loads and sums go side by side.
#pragma once

#include "lanes.cuh"

constexpr int kTokenThreads = TOKEN_WARPS * WARP;
constexpr int kItems = (HIDDEN / LANES + kTokenThreads - 1) / kTokenThreads;
constexpr int kBlockThreads = TOKEN_WARPS == 1 ? BLOCK_WARPS * WARP : kTokenThreads;

// One thread's share of a token's channels; zeros behind the last.
using Row = float[kItems][LANES];

// The first of the kRows tokens that this thread works on.
template <int kRows>
DEVICE int own_token() {
  return (static_cast<int>(blockIdx.x) * (kBlockThreads / kTokenThreads) + static_cast<int>(threadIdx.x) / kTokenThreads) * kRows;
}
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

// Sums over a token's threads, of kRows tokens at once; always in the same order.
template <int kRows>
DEVICE void token_sums(float (&values)[kRows]) {
#pragma unroll
  for (int step = WARP / 2; step > 0; step /= 2)
#pragma unroll
    for (int row = 0; row < kRows; row++) values[row] += __shfl_xor_sync(0xffffffffu, values[row], step);
  if (TOKEN_WARPS == 1) return;
  __shared__ float sums[kRows][TOKEN_WARPS];
  __syncthreads();  // the sums before these have been read
  if (lane_id() == 0)
    for (int row = 0; row < kRows; row++) sums[row][warp_id() % TOKEN_WARPS] = values[row];
  __syncthreads();
#pragma unroll
  for (int row = 0; row < kRows; row++) {
    values[row] = 0.f;
#pragma unroll
    for (int warp = 0; warp < TOKEN_WARPS; warp++) values[row] += sums[row][warp];
  }
}

// Each row less its mean; scales: what then makes its variance 1. The variance is of the deviations themselves: a large mean takes nothing
// from it.
template <int kRows>
DEVICE void centre(Row (&rows)[kRows], float (&scales)[kRows], float eps) {
  float sums[kRows] = {}, squares[kRows] = {};
#pragma unroll
  for (int row = 0; row < kRows; row++)
#pragma unroll
    for (int i = 0; i < kItems; i++)
#pragma unroll
      for (int lane = 0; lane < LANES; lane++) sums[row] += rows[row][i][lane];
  token_sums(sums);
#pragma unroll
  for (int row = 0; row < kRows; row++)
#pragma unroll
    for (int i = 0; i < kItems; i++)
#pragma unroll
      for (int lane = 0; lane < LANES; lane++) {
        float& value = rows[row][i][lane];
        value -= sums[row] * (1.f / HIDDEN);
        if (channel_of(i) < HIDDEN) squares[row] += value * value;
      }
  token_sums(squares);
#pragma unroll
  for (int row = 0; row < kRows; row++) scales[row] = rsqrtf(squares[row] * (1.f / HIDDEN) + eps);
}

// weight and bias float [HIDDEN]; bias may be null.
template <int kRows>
DEVICE void normalise(Row (&rows)[kRows], const float* weight, const float* bias, float eps) {
  float scales[kRows];
  centre(rows, scales, eps);
#pragma unroll
  for (int i = 0; i < kItems; i++) {
    if (channel_of(i) >= HIDDEN) continue;
    float factors[LANES], offsets[LANES] = {};
    load_floats(weight + channel_of(i), factors);
    if (bias) load_floats(bias + channel_of(i), offsets);
#pragma unroll
    for (int row = 0; row < kRows; row++)
#pragma unroll
      for (int lane = 0; lane < LANES; lane++) rows[row][i][lane] = rows[row][i][lane] * scales[row] * factors[lane] + offsets[lane];
  }
}
