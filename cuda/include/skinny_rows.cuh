// Which rows of a weight a tile of a skinny product has, and where what is computed of them goes.
//
// Defines: OUT; for QKV what cache.cuh wants and the heads: NUM_HEADS of queries, NUM_KV_HEADS of keys, as many of values.
#pragma once

#include "types.cuh"
#if defined(QKV)
#include "cache.cuh"
#endif

constexpr int kRows = 16;   // of a tile
constexpr int kChunk = 32;  // channels that two mma take

// A tile's rows of w: eight from `low` on and eight from `high` on, which are row i and row i + 8 of the product.
struct Rows {
  int low, high;

  DEVICE int operator[](int i) const { return i < 8 ? low + i : high + i - 8; }
};

#if defined(STORED) || defined(ADDED)
struct InOrder {
  DEVICE Rows operator()(int tile) const { return {tile * kRows, tile * kRows + 8}; }
};
#elif defined(GATED)
// The same rows of w's two halves.
struct BothHalves {
  DEVICE Rows operator()(int tile) const { return {tile * 8, OUT / 2 + tile * 8}; }
};
#elif defined(QKV)
constexpr int kHalf = HEAD_DIM / 2, kTilesPerHead = HEAD_DIM / kRows;

// 8 channels of a head and those half a head further, which the rotation mixes.
struct HalvesOfHeads {
  static DEVICE int first_row(int tile) { return tile / kTilesPerHead * HEAD_DIM + tile % kTilesPerHead * 8; }
  DEVICE Rows operator()(int tile) const { return {first_row(tile), first_row(tile) + kHalf}; }
};

DEVICE void store_cached(Element* cache, int head, int slot, int channel, float value) {
  Element* tile = cache + ((i64)(slot / BLOCK_SIZE) * NUM_KV_HEADS + head) * (BLOCK_SIZE * HEAD_DIM);
  tile[cache_offset(slot % BLOCK_SIZE, channel / CHUNK * CHUNK) + channel % CHUNK] = from_float(value);
}
#endif

DEVICE float biased(float value, const Element* bias, int row) { return bias ? value + to_float(bias[row]) : value; }

// Rounded as a product that is stored: what follows does not depend on which kernel computed it.
DEVICE float rounded(float value) { return to_float(from_float(value)); }
