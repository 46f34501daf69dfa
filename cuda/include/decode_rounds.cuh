// Which ranges of the line a block takes, one a round, and where the parts of a pair that several blocks share are put together.
#pragma once

#include "decode_line.cuh"

// Partial results of one pair, in the order of its tiles: where each lies in an array of them.
struct Parts {
  int start, skip, stride, count;

  DEVICE int operator[](int part) const { return start + part * stride + (part == 0 ? skip : 0); }
};

#if DETERMINISTIC

// Every pair is cut into units, by nothing but its own length: at least SPLIT_TILES tiles each, MAX_SPLITS at most. Unit after unit
// goes to block after block. A row has SPLIT_TILES-th parts of its tiles, one more, as units' numbers; some of them may be empty.
struct Rounds {
  Rows rows;
  int count;

  DEVICE Rounds(const Rows& batch, int num_rows, int num_tiles) : rows(batch) {
    int block = static_cast<int>(blockIdx.x), num_blocks = static_cast<int>(gridDim.x);
    int num_units = num_tiles == 0 ? 0 : first_unit(num_rows, num_tiles) * NUM_KV_HEADS;
    count = block < num_units ? (num_units - 1 - block) / num_blocks + 1 : 0;
  }
  DEVICE Range range(int round) const {
    int unit = static_cast<int>(blockIdx.x) + round * static_cast<int>(gridDim.x), key = unit / NUM_KV_HEADS;
    int row = find_row(rows, first_unit, key, key, key);
    int start = rows.starts[row], num_tiles = rows.starts[row + 1] - start;
    int length = unit_length(num_tiles), first = (key - first_unit(row, start)) * length;
    int begin = start * NUM_KV_HEADS + unit % NUM_KV_HEADS * num_tiles;
    return {begin + min(first, num_tiles), begin + min(first + length, num_tiles)};
  }
  DEVICE Parts parts(const Tile& pair) const {
    int num_tiles = pair.end - pair.begin;
    return {counter(pair) * MAX_SPLITS, 0, 1, ceil_div(num_tiles, unit_length(num_tiles))};
  }
  // The part of a pair that a range of this block is.
  DEVICE int part(const Tile& pair, const Range& range) const {
    return counter(pair) * MAX_SPLITS + (range.begin - pair.begin) / unit_length(pair.end - pair.begin);
  }
  DEVICE int counter(const Tile& pair) const { return pair.row * NUM_KV_HEADS + pair.head; }

 private:
  static DEVICE int first_unit(int row, int start) { return start / SPLIT_TILES + row; }
  static DEVICE int unit_length(int num_tiles) { return max(SPLIT_TILES, ceil_div(num_tiles, MAX_SPLITS)); }
};

#else

// A pair of so many tiles, 128 KiB, comes to one multiprocessor about as fast as blocks put its parts together.
constexpr int kWholeTiles = (64 << 10) / (kTile * HEAD_DIM * static_cast<int>(sizeof(Element)));

// The whole line in equal ranges, one a block. A range cuts two pairs at most, one at each end: a block has two places for parts, and
// a pair's counter is that of the block where it begins. With few tiles only some blocks have any, so that no warp of theirs idles.
// Where there is a block for every pair and no pair is long, each block takes one: then none waits for another's part.
struct Rounds {
  Split split;
  int count;
  Range own;

  DEVICE Rounds(const Rows& rows, int num_rows, int num_tiles) : split(num_tiles * NUM_KV_HEADS, num_ranges(num_tiles)) {
    int block = static_cast<int>(blockIdx.x), num_pairs = num_rows * NUM_KV_HEADS;
    // Rows without tiles, and lanes without a row, are ranges of no length.
    int start = min(rows.looked, num_tiles), next = __shfl_sync(~0u, start, min(lane_id() + 1, WARP - 1));
    int length = (lane_id() == WARP - 1 ? num_tiles : next) - start;
    bool any_long = __any_sync(~0u, length > kWholeTiles);
    if (rows.step() == 1 && num_pairs <= static_cast<int>(gridDim.x) && !any_long) {
      int row = min(block / NUM_KV_HEADS, WARP - 1);
      start = __shfl_sync(~0u, start, row), length = __shfl_sync(~0u, length, row);
      int begin = start * NUM_KV_HEADS + block % NUM_KV_HEADS * length;
      own = {begin, begin + length};
      count = block < num_pairs && length > 0;
    } else {
      own = split.range(block);
      count = num_tiles > 0 && block < num_ranges(num_tiles);
    }
  }
  DEVICE Range range(int) const { return own; }
  DEVICE Parts parts(const Tile& pair) const {
    int first = split.owner(pair.begin);
    return {2 * first, 1, 2, split.owner(pair.end - 1) - first + 1};
  }
  DEVICE int part(const Tile& pair, const Range& range) const {
    return 2 * static_cast<int>(blockIdx.x) + (pair.begin < range.begin ? 0 : 1);
  }
  DEVICE int counter(const Tile& pair) const { return split.owner(pair.begin); }

 private:
  static DEVICE int num_ranges(int num_tiles) {
    int useful = max(ceil_div(num_tiles * NUM_KV_HEADS, MIN_TILES), 1);
    return min(useful, static_cast<int>(gridDim.x));
  }
};

#endif
