// How cuda/skinny_wide.cu cuts its work, and the rings through which each warp streams its part of the weights and of x.
#pragma once

#include "ptx.cuh"
#include "skinny_rows.cuh"

constexpr int kWarps = 4;
constexpr int kThreads = kWarps * WARP;
constexpr int kTokenTiles = TOKENS / 8;
constexpr int kStages = IN / STAGE / SLICES;  // of a row's slice
constexpr int kTiles = OUT / kRows, kGroups = (kTiles + TILES - 1) / TILES;
constexpr int kItems = kGroups * SLICES;  // an item is a slice of a group
constexpr bool kWhole = kTiles % TILES == 0;  // the last group has no fewer tiles
static_assert((i64)OUT * IN < 1ll << 31 && kTokenTiles % 2 == 0, "places fit an int; x is read two tiles of tokens at a time");
constexpr int kInputRow = TILES * kRows;      // of a stage: x's rows lie behind the weights'
constexpr int kStageElements = (kInputRow + TOKENS) * STAGE;
constexpr int kSquareRows = IN / kRows;  // of the squares of x, TOKENS each
constexpr int kOwn = kRows * TOKENS / kThreads;  // of a tile's elements, a thread
static_assert(kOwn == 4, "a thread's elements of a tile fill a float4");

// Element of a stage at which eight channels of a row begin: they are permuted by the row, so that the same ones of eight neighbouring rows
// lie in different banks.
DEVICE int place_of(int row, int eight) { return row * STAGE + (eight ^ (STAGE > 32 ? row & 7 : row / 2 & 3)) * 8; }

// Brings a warp's stages in the order in which it computes them: every kWarps-th of an item, so that the block reads along the rows.
template <typename RowsOf>
struct Loader {
  const Element* weight;
  const Element* x;
  int num_tokens;
  Element* ring;
  RowsOf rows_of;
  int item, stage, slot;

  DEVICE Loader(const Element* weight, const Element* x, int num_tokens, Element* ring, RowsOf rows_of)
      : weight(weight), x(x), num_tokens(num_tokens), ring(ring), rows_of(rows_of), item(blockIdx.x), stage(warp_id()), slot(0) {}

  // The next stage, or only its weights or its x, by kLanes of a warp's lanes: `lane` counts from the first of them. They always commit a
  // group, so that their groups count the stages.
  template <bool kWeights, bool kInput, int kLanes>
  DEVICE void load(int lane) {
    while (stage >= kStages && item < kItems) stage = warp_id(), item += gridDim.x;
    if (kLanes == WARP || static_cast<u32>(lane) < kLanes) {
      if (kWeights && item < kItems) copy_weights<kLanes>(lane);
      if (kInput && item < kItems) copy_input<kLanes>(lane);
      copy_async_commit();
    }
    stage += kWarps;
    slot = slot + 1 == NUM_STAGES ? 0 : slot + 1;
  }

 private:
  static constexpr int kPerRow = STAGE / 8;

  DEVICE int first_channel() const { return (item % SLICES * kStages + stage) * STAGE; }

  template <int kLanes>
  DEVICE void copy_weights(int lane) {
    constexpr int kTogether = kLanes / kPerRow;  // rows
    static_assert(8 % kTogether == 0, "half a tile is copied by all lanes");
    int own = lane / kPerRow, eight = lane % kPerRow;
    Element* to = ring + slot * kStageElements;
#pragma unroll
    for (int half = 0; half < TILES * 2; ++half) {
      int tile = item / SLICES * TILES + half / 2;
      if (!kWhole && tile >= kTiles) break;
      Rows rows = rows_of(tile);
      const Element* from = weight + ((half % 2 ? rows.high : rows.low) + own) * IN + first_channel() + eight * 8;
#pragma unroll
      for (int i = 0; i < 8; i += kTogether) copy_async16(to + place_of(i + own, eight) + half * 8 * STAGE, from + i * IN, true);
    }
  }
  template <int kLanes>
  DEVICE void copy_input(int lane) {
    constexpr int kTogether = kLanes / kPerRow;  // tokens
    int own = lane / kPerRow, eight = lane % kPerRow;
    Element* to = ring + slot * kStageElements;
    const Element* from = x + own * IN + first_channel() + eight * 8;
#pragma unroll
    for (int i = 0; i < TOKENS; i += kTogether)
      copy_async16(to + place_of(i % 8 + own, eight) + (kInputRow + i / 8 * 8) * STAGE, from + i * IN, i + own < num_tokens);
  }
};
