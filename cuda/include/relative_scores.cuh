// What distances add to scores: products of queries and keys with the positions' rows, and from an offset's column or row of those to the
// score it belongs to.
//
// The product of 16 queries with rows by offset is a band: query r finds key j in column j + 15 - r. The product of such rows with keys
// is one along the other side. In mma.m16n8k16's accumulators a row's columns lie in four lanes, and a column's rows in eight, so
// shuffles bring both into place.
#pragma once

#include "relative_tile.cuh"

constexpr int kBandTiles = kScoreTiles + 2;           // of 8 columns: kTileN + 15 of them, and one
constexpr int kPairs = (kTileN + kWarpRows) / 16;     // of tiles of 8 offsets, which a warp's rows meet
using Band = float[kAtoms][kBandTiles][4];
using Cross = float[kScoreTiles][3][4];               // 8 keys with three times 16 offsets, of which they meet 40

// As fresh_thread. Without it what follows from the lane is held throughout, and registers do not suffice.
DEVICE int fresh_lane() { return fresh_thread() % WARP; }

DEVICE void clear(Scores& scores) {
#pragma unroll
  for (int i = 0; i < kAtoms * kScoreTiles * 4; ++i) scores[i / (4 * kScoreTiles)][i / 4 % kScoreTiles][i % 4] = 0;
}

// band = queries positions^T
DEVICE void multiply_positions(Band& band, const Queries& queries, const Element* ring, int first) {
  int base = tile_offset<kRing>(lane_id() / 16 * 8 + lane_id() % 8, lane_id() / 8 % 2);
#pragma unroll
  for (int i = 0; i < kAtoms * kBandTiles * 4; ++i) band[i / (4 * kBandTiles)][i / 4 % kBandTiles][i % 4] = 0;
#pragma unroll
  for (int k = 0; k < HEAD_DIM / 16; ++k) {
#pragma unroll
    for (int pair = 0; pair < kPairs; ++pair) {
      u32 rows[4];  // two tiles of 8 offsets, the first and the last 8 of the 16 channels of each
      load_matrix_x4(rows, ring_rows(ring, base, first + pair * 16, 2 * k));
#pragma unroll
      for (int atom = 0; atom < kAtoms; ++atom) {
        int tile = 2 * (pair - (kAtoms - 1 - atom));  // later queries begin at earlier offsets
        if (tile < 0 || tile >= kBandTiles) continue;
        mma_16816(band[atom][tile], queries.at[atom][k], rows[0], rows[1]);
        mma_16816(band[atom][tile + 1], queries.at[atom][k], rows[2], rows[3]);
      }
    }
  }
}

// Row r of an atom finds its key 8 n + i in column 8 (n + 1) + 7 - r + i, row r + 8 in column 8 n + 7 - r + i.
DEVICE void align_band(float (&scores)[kScoreTiles][4], const float (&band)[kBandTiles][4]) {
  int lane = fresh_lane(), column = lane % 4, shift = 7 - lane / 4;
  bool odd = shift & 1;
  int even_lanes = shift / 2, odd_lanes = even_lanes + odd;  // how far away the values of the even and of the odd column are
  int even_from = lane - column + (column + even_lanes) % 4, odd_from = lane - column + (column + odd_lanes) % 4;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float even[kScoreTiles + 1], other[kScoreTiles + 1];  // what becomes an even column, and an odd one
#pragma unroll
    for (int n = 0; n <= kScoreTiles; ++n) {
      const float* pair = band[n + 1 - half] + 2 * half;
      even[n] = odd ? pair[1] : pair[0];
      other[n] = odd ? pair[0] : pair[1];
    }
#pragma unroll
    for (int n = 0; n < kScoreTiles; ++n) {
      scores[n][2 * half] = __shfl_sync(~0u, column >= even_lanes ? even[n] : even[n + 1], even_from);
      scores[n][2 * half + 1] = __shfl_sync(~0u, column >= odd_lanes ? other[n] : other[n + 1], odd_from);
    }
  }
}

// scores = what the positions that meet queries add; first: the first offset that the warp's rows meet.
DEVICE void score_positions(Scores& scores, const Queries& queries, const Element* ring, int first) {
  Band band;
  multiply_positions(band, queries, ring, first);
#pragma unroll
  for (int atom = 0; atom < kAtoms; ++atom) align_band(scores[atom], band[atom]);
}

// scores += queries keys^T, and cross = positions keys^T.
DEVICE void multiply_keys(Scores& scores, Cross& cross, const Queries& queries, const Element* keys, const Element* ring, int first) {
  int lane = fresh_lane();
  int key_base = tile_offset<kTileN>(lane / 16 * 8 + lane % 8, lane / 8 % 2);
  int ring_base = tile_offset<kRing>(lane % 16, lane / 16);
#pragma unroll
  for (int i = 0; i < kScoreTiles * 12; ++i) cross[i / 12][i / 4 % 3][i % 4] = 0;
#pragma unroll
  for (int k = 0; k < HEAD_DIM / 16; ++k) {
    u32 key[kScoreTiles / 2][4];  // of two tiles of 8 keys, the first and the last 8 of the 16 channels of each
#pragma unroll
    for (int i = 0; i < kScoreTiles / 2; ++i) load_matrix_x4(key[i], keys + tile_step<kTileN>(key_base, i * 16, 2 * k));
#pragma unroll
    for (int i = 0; i < kScoreTiles * kAtoms; ++i) {
      int n = i / kAtoms, atom = i % kAtoms;
      mma_16816(scores[atom][n], queries.at[atom][k], key[n / 2][n % 2 * 2], key[n / 2][n % 2 * 2 + 1]);
    }
    if (!POSITION_TO_CONTENT) continue;
#pragma unroll
    for (int pair = 0; pair < kPairs; ++pair) {
      u32 rows[4];
      load_matrix_x4(rows, ring_rows(ring, ring_base, first + pair * 16, 2 * k));
#pragma unroll
      for (int n = 0; n < kScoreTiles; ++n) {
        int third = pair - n / 2;
        if (third >= 0 && third < 3) mma_16816(cross[n][third], rows, key[n / 2][n % 2 * 2], key[n / 2][n % 2 * 2 + 1]);
      }
    }
  }
}

// Row 8 b + g of the warp's and key 8 n + t meet in the offset 8 (n + 3 - b) + t + 7 - g: in row t + 7 - g of one tile of 8 offsets, or,
// where that is beyond it, of the next.
DEVICE void add_cross(Scores& scores, const Cross& cross) {
  int lane = lane_id(), row = lane / 4;
#pragma unroll
  for (int column = 0; column < 2; ++column) {
    int key = lane % 4 * 2 + column, from = (key + 7 - row) % 8 * 4 + lane % 4;
    bool next = row < key;  // this lane's row is asked for out of the next tile
#pragma unroll
    for (int i = 0; i < kScoreTiles * 4; ++i) {
      int n = i / 4, rows = i % 4, tile = n % 2 + 3 - rows;
      float here = cross[n][tile / 2][tile % 2 * 2 + column];
      float there = cross[n][(tile + 1) / 2][(tile + 1) % 2 * 2 + column];
      scores[rows / 2][n][rows % 2 * 2 + column] += __shfl_sync(~0u, next ? there : here, from);
    }
  }
}

// scores += queries keys^T, and what the positions that meet keys add.
DEVICE void score_keys(Scores& scores, const Queries& queries, const Element* keys, const Element* ring, int first) {
  Cross cross;
  multiply_keys(scores, cross, queries, keys, ring, first);
  if (POSITION_TO_CONTENT) add_cross(scores, cross);
}
