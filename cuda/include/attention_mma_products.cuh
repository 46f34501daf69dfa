// The two products of attention, queries by keys and weights by values, in mma.m16n8k16's fragments.
#pragma once

#include "attention_mma_tile.cuh"

// scores = queries [kWarpRows from first_row on] keys^T
DEVICE void score_keys(Scores& scores, const Element* queries, const Element* keys, int first_row) {
  int lane = lane_id();
  int query_base = tile_offset<kTileM>(first_row + lane % 16, lane / 16);
  int key_base = tile_offset<kTileN>(lane / 16 * 8 + lane % 8, lane / 8 % 2);
#pragma unroll
  for (int i = 0; i < kAtoms * kScoreTiles * 4; ++i) scores[i / (4 * kScoreTiles)][i / 4 % kScoreTiles][i % 4] = 0;
#pragma unroll
  for (int k = 0; k < HEAD_DIM / 16; ++k) {
    u32 query[kAtoms][4];
#pragma unroll
    for (int atom = 0; atom < kAtoms; ++atom)
      load_matrix_x4(query[atom], queries + tile_step<kTileM>(query_base, atom * 16, 2 * k));
#pragma unroll
    for (int n = 0; n < kScoreTiles; n += 2) {
      u32 key[4];  // two tiles of 8 keys, the first and the last 8 of the 16 channels of each
      load_matrix_x4(key, keys + tile_step<kTileN>(key_base, n * 8, 2 * k));
#pragma unroll
      for (int atom = 0; atom < kAtoms; ++atom) {
        mma_16816(scores[atom][n], query[atom], key[0], key[1]);
        mma_16816(scores[atom][n + 1], query[atom], key[2], key[3]);
      }
    }
  }
}

// out += weights values; the weights are the scores' registers after the softmax.
DEVICE void add_values(AttentionRows& rows, const Scores& weights, const Element* values) {
  int base = tile_offset<kTileN>(lane_id() % 16, lane_id() / 16);
#pragma unroll
  for (int k = 0; k < kTileN / 16; ++k) {
    u32 weight[kAtoms][4];
#pragma unroll
    for (int atom = 0; atom < kAtoms; ++atom) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {  // the accumulators of two tiles of 8 columns are one A fragment of 16
        const float* pair = weights[atom][2 * k + i / 2] + i % 2 * 2;
        weight[atom][i] = pack(pair[0], pair[1]);
      }
    }
#pragma unroll
    for (int n = 0; n < kOutTiles; n += 2) {
      u32 value[4];  // two tiles of 8 channels, the first and the last 8 of the 16 tokens of each
      load_matrix_x4_transposed(value, values + tile_step<kTileN>(base, k * 16, n));
#pragma unroll
      for (int atom = 0; atom < kAtoms; ++atom) {
        mma_16816(rows.out[atom][n], weight[atom], value[0], value[1]);
        mma_16816(rows.out[atom][n + 1], weight[atom], value[2], value[3]);
      }
    }
  }
}
