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

  DEVICE Rounds(const Rows& batch, int num_tiles) : rows(batch) {
    int block = static_cast<int>(blockIdx.x), num_blocks = static_cast<int>(gridDim.x);
    int num_units = num_tiles == 0 ? 0 : first_unit(rows.num_rows) * NUM_KV_HEADS;
    count = block < num_units ? (num_units - 1 - block) / num_blocks + 1 : 0;
  }
  DEVICE Range range(int round) const {
    int unit = static_cast<int>(blockIdx.x) + round * static_cast<int>(gridDim.x), key = unit / NUM_KV_HEADS;
    int row = find_row([&](int r) { return first_unit(r); }, rows.num_rows, key, key, key);
    int start = rows.starts[row], num_tiles = rows.starts[row + 1] - start;
    int length = unit_length(num_tiles), first = (key - first_unit(row)) * length;
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
  DEVICE int first_unit(int row) const { return rows.starts[row] / SPLIT_TILES + row; }
  static DEVICE int unit_length(int num_tiles) { return max(SPLIT_TILES, ceil_div(num_tiles, MAX_SPLITS)); }
};

#else

// The whole line in equal ranges, one a block. A range cuts two pairs at most, one at each end: a block has two places for parts, and
// a pair's counter is that of the block where it begins. With few tiles only some blocks have any, so that no warp of theirs idles.
struct Rounds {
  Split split;
  int count;

  DEVICE Rounds(const Rows&, int num_tiles)
      : split(num_tiles * NUM_KV_HEADS, num_ranges(num_tiles)),
        count(num_tiles > 0 && static_cast<int>(blockIdx.x) < num_ranges(num_tiles) ? 1 : 0) {}
  DEVICE Range range(int) const { return split.range(static_cast<int>(blockIdx.x)); }
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
