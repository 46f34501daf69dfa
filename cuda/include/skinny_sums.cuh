// What the warps of cuda/skinny_wide.cu add up: products of a stage, a tile's sums of all warps, the squares of x.
#pragma once

#include "skinny_wide_ring.cuh"

struct Sums {
  float of[kTokenTiles][4];
};

struct Shared {
  float sums[kWarps][kRows][TOKENS + 1];  // one more, against bank conflicts
  float squares[kWarps][TOKENS];          // of the part of a normed x that each warp added up
#if defined(QKV)
  int positions[TOKENS], cache_slots[TOKENS];
#endif
  bool is_last;  // of a group's slices
};

// A stage, 16 channels after the other.
DEVICE void multiply(Sums (&sums)[TILES], const Element* stage) {
  int matrix = lane_id() / 8, row = lane_id() % 8;  // that a lane gives the address of
#pragma unroll
  for (int eight = 0; eight < STAGE / 8; eight += 2) {
    const Element* weights = stage + place_of(matrix % 2 * 8 + row, eight + matrix / 2);
    const Element* inputs = stage + place_of(kInputRow + matrix / 2 * 8 + row, eight + matrix % 2);
    u32 b[kTokenTiles / 2][4];
#pragma unroll
    for (int j = 0; j < kTokenTiles / 2; ++j) load_matrix_x4(b[j], inputs + j * 16 * STAGE);
#pragma unroll
    for (int t = 0; t < TILES; ++t) {
      u32 a[4];
      load_matrix_x4(a, weights + t * kRows * STAGE);
#pragma unroll
      for (int j = 0; j < kTokenTiles; ++j) mma_16816(sums[t].of[j], a, b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]);
    }
  }
}

DEVICE void share(Shared& shared, const Sums& sums) {
  int row = lane_id() / 4, token = lane_id() % 4 * 2;
#pragma unroll
  for (int j = 0; j < kTokenTiles; ++j) {
    const float(&of)[4] = sums.of[j];
    float* low = &shared.sums[warp_id()][row][j * 8 + token];
    float* high = &shared.sums[warp_id()][row + 8][j * 8 + token];
    low[0] = of[0], low[1] = of[1], high[0] = of[2], high[1] = of[3];
  }
}

// x's squares float32 [kSquareRows, TOKENS], added up in an order that is always the same. All threads; a __syncthreads follows.
DEVICE void add_squares(Shared& shared, const float* squares) {
  constexpr int kFours = TOKENS / 4, kTogether = kThreads / kFours;  // tokens a thread adds up; rows at a time
  int four = threadIdx.x % kFours;
  float4 sum = make_float4(0.f, 0.f, 0.f, 0.f);
#pragma unroll 16
  for (int row = threadIdx.x / kFours; row < kSquareRows; row += kTogether) {
    float4 of = reinterpret_cast<const float4*>(squares)[row * kFours + four];
    sum = make_float4(sum.x + of.x, sum.y + of.y, sum.z + of.z, sum.w + of.w);
  }
#pragma unroll
  for (int other = kFours; other < WARP; other *= 2) {
    sum.x += __shfl_xor_sync(0xffffffffu, sum.x, other), sum.y += __shfl_xor_sync(0xffffffffu, sum.y, other);
    sum.z += __shfl_xor_sync(0xffffffffu, sum.z, other), sum.w += __shfl_xor_sync(0xffffffffu, sum.w, other);
  }
  if (lane_id() < kFours) reinterpret_cast<float4*>(shared.squares[warp_id()])[four] = sum;
}

DEVICE float sum_of_warps(const Shared& shared, int row, int token) {
  float sum = 0;
#pragma unroll
  for (int warp = 0; warp < kWarps; ++warp) sum += shared.sums[warp][row][token];
  return sum;
}

// The product's element, of a row of the tile that was shared last.
DEVICE float result(const Shared& shared, int row, int token) {
  return SLICES > 1 ? shared.sums[0][row][token] : sum_of_warps(shared, row, token);
}

// As `result`, for x whose squares were added up.
DEVICE float normed_result(const Shared& shared, int row, int token, float eps) {
  float squares = 0;
#pragma unroll
  for (int warp = 0; warp < kWarps; ++warp) squares += shared.squares[warp][token];
  return result(shared, row, token) * rsqrtf(squares / IN + eps);
}

// Of a tile's elements, the i-th of a thread.
struct Spot {
  int row, token;

  DEVICE Spot(int i) : row((threadIdx.x + i * kThreads) % kRows), token((threadIdx.x + i * kThreads) / kRows) {}
};
