// Tiles of attention by mma.m16n8k16: their sizes, and how they lie in shared memory and registers.
#pragma once

#include "cache.cuh"
#include "ptx.cuh"

constexpr int kTileM = TILE_M;                   // rows of queries in a tile
constexpr int kTileN = TILE_N;                   // keys taken at a time
constexpr int kAtoms = HEAD_DIM <= 128 ? 2 : 1;  // times 16 rows a warp: two share every key and value they load
constexpr int kWarpRows = 16 * kAtoms;
constexpr int kNumThreads = kTileM / kWarpRows * WARP;
constexpr int kScoreTiles = kTileN / 8;
constexpr int kOutTiles = HEAD_DIM / 8;
constexpr int kRowChunks = HEAD_DIM / CHUNK;
constexpr int kSegmentChunks = SEGMENT / CHUNK;
static_assert(kTileN * kSegmentChunks % kNumThreads == 0, "threads share a tile of keys evenly");
constexpr float kLog2E = 1.44269504f;

// What the whole warp agrees on, so that the compiler knows it does: it makes a second, slow copy of shuffles in doubtful branches.
DEVICE int uniform(int x) { return __shfl_sync(~0u, x, 0); }

// The thread's place in its block, which the compiler takes for news: addresses that follow from it are computed where they are used,
// and hold no registers throughout a loop.
DEVICE int fresh_thread() { return threadIdx.x + uniform(0); }

// Shared memory, in this order: kTileM queries, which become the tile's result, kTileN values and twice kTileN keys. Each is
// [NUM_SEGMENTS][tokens][SEGMENT] with its chunks permuted as in the paged cache, so that ldmatrix meets no bank conflict.
struct AttentionShared {
  Element *queries, *values, *keys;

  explicit DEVICE AttentionShared(u8* bytes)
      : queries(reinterpret_cast<Element*>(bytes)),
        values(queries + kTileM * HEAD_DIM),
        keys(values + kTileN * HEAD_DIM) {}

  // Where the tile from `key` on goes.
  DEVICE Element* keys_at(int key) const { return keys + key / kTileN % 2 * (kTileN * HEAD_DIM); }
};

// Element offset of a 16-byte chunk of a token's channels, in a tile of kTokens.
template <int kTokens>
DEVICE int tile_offset(int token, int chunk) {
  int segment = chunk / kSegmentChunks;
  return (segment * kTokens + token) * SEGMENT + swizzle(token, chunk % kSegmentChunks) * CHUNK;
}

// tile_offset(row + token, first + chunk) where base is tile_offset(row, first), token a multiple of 8 and
// first 0, or chunk even and first 1: with constants for both, one instruction and an immediate.
template <int kTokens>
DEVICE int tile_step(int base, int token, int chunk) {
  return (base ^ chunk % kSegmentChunks * CHUNK) + (chunk / kSegmentChunks * kTokens + token) * SEGMENT;
}

// Minus infinity: the score of a key that is not seen.
DEVICE float never() { return __int_as_float(static_cast<int>(0xff800000)); }

// What a warp keeps of its rows. Lane l has of each atom rows l / 4 and l / 4 + 8, columns 8 n + 2 (l % 4) and the one after.
struct AttentionRows {
  float out[kAtoms][kOutTiles][4];
  float base[kAtoms][2];  // a score's weight is 2^(scale score - base)
  float sum[kAtoms][2];   // of the weights of this lane's columns

  DEVICE void clear() {
#pragma unroll
    for (int atom = 0; atom < kAtoms; ++atom) {
#pragma unroll
      for (int i = 0; i < kOutTiles * 4; ++i) out[atom][i / 4][i % 4] = 0;
#pragma unroll
      for (int half = 0; half < 2; ++half) base[atom][half] = never(), sum[atom][half] = 0;
    }
  }
};

using Scores = float[kAtoms][kScoreTiles][4];
