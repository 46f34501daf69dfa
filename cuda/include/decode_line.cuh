// The work of a decode step as one line of tiles: 16 tokens of context each, those of a pair (row, KV head) side by side, pair after
// pair, the heads of a row before the next row. A place is the number of a tile on the line.
#pragma once

#include "types.cuh"

constexpr int kTile = 16;  // tokens
constexpr int kGroup = NUM_HEADS / NUM_KV_HEADS;
constexpr int kAfterAll = 0x7fffffff;

// What the kernel reads of the batch.
struct Rows {
  int num_rows;       // of the bucket: more than there are, and those have no tiles
  const int* starts;  // [rows + 1] tiles of one head, prefix sums
  const int* query_starts;
  const int* context_lens;
  const int* slots;
  const int* block_tables;  // [slots, max_blocks]
  int max_blocks;
  int looked;  // each lane's part of a first look at the starts

  // Waits for nothing, not for the batch's true sizes either.
  DEVICE void look() {
    int row = lane_id() * step();
    looked = row < num_rows ? starts[row] : kAfterAll;
  }
  // Rows between two that lanes look at.
  DEVICE int step() const { return ceil_div(num_rows, WARP); }
};

struct alignas(16) Tile {
  int begin, end;  // its pair's places on the line
  int row, head;
  int token, context;  // of the row: its query's token in the batch, and the tokens it sees
  int first;           // place in the context of the tile's first token
  int block;           // of the cache
};

struct Range {
  int begin, end;
};

// `length` places in `num_parts` ranges whose lengths differ by one at most, the longer ones first.
struct Split {
  int base, num_longer;

  DEVICE Split(int length, int num_parts) : base(length / num_parts), num_longer(length % num_parts) {}
  DEVICE Range range(int part) const { return {start(part), start(part + 1)}; }
  DEVICE int start(int part) const { return part * base + min(part, num_longer); }
  // The part that holds a place.
  DEVICE int owner(int place) const {
    int longer = num_longer * (base + 1);
    return place < longer ? place / (base + 1) : num_longer + (place - longer) / base;
  }
};

// The last row with start_of(row, starts[row]) <= key; start_of never falls and is 0 for row 0. All lanes of a warp together: each has a
// key of its own between first_key and last_key, the same for all. The lanes' look at 32 rows leaves 1/32 of the rows to search.
template <typename StartOf>
DEVICE int find_row(const Rows& rows, const StartOf& start_of, int key, int first_key, int last_key) {
  int step = rows.step(), start = rows.looked == kAfterAll ? kAfterAll : start_of(lane_id() * step, rows.looked);
  int low = (__popc(__ballot_sync(~0u, start <= first_key)) - 1) * step;
  int high = min(__popc(__ballot_sync(~0u, start <= last_key)) * step, rows.num_rows);
  while (high - low > 1) {
    int middle = (low + high) / 2;
    if (start_of(middle, rows.starts[middle]) <= key) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return low;
}

// First token that a row with one token sees.
DEVICE int first_seen(int context) { return WINDOW > 0 ? max(context - WINDOW, 0) : 0; }

// The tile at a place from first_place to last_place, which are the same for all lanes of a warp.
DEVICE Tile find_tile(const Rows& rows, int place, int first_place, int last_place) {
  auto start_of = [](int, int start) { return start; };
  int row = find_row(rows, start_of, place / NUM_KV_HEADS, first_place / NUM_KV_HEADS, last_place / NUM_KV_HEADS);
  int start = rows.starts[row], num_tiles = rows.starts[row + 1] - start;
  int slot = rows.slots[row], token = rows.query_starts[row], context = rows.context_lens[row];
  int begin = start * NUM_KV_HEADS, head = (place - begin) / num_tiles;
  begin += head * num_tiles;
  int first = (first_seen(context) / kTile + place - begin) * kTile;
  int block = rows.block_tables[static_cast<i64>(slot) * rows.max_blocks + first / BLOCK_SIZE];
  return {begin, begin + num_tiles, row, head, token, context, first, block};
}
