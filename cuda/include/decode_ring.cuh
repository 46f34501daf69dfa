// A warp's ring of tiles in shared memory, filled several tiles ahead, across the ends of pairs and of rounds.
#pragma once

#include "cache.cuh"
#include "decode_rounds.cuh"
#include "ptx.cuh"

constexpr int kTileElements = kTile * HEAD_DIM;  // of keys, and as many of values
// In one (block, head) of the cache the tile is one piece, or a piece in each segment.
constexpr int kPieces = BLOCK_SIZE == kTile ? 1 : NUM_SEGMENTS;
constexpr int kPieceElements = kTileElements / kPieces;

static_assert(NUM_STAGES >= 2, "a stage is described a __syncwarp before it is read");

// Element offset of a channel (a multiple of CHUNK) of a tile's token in shared memory.
DEVICE int tile_offset(int token, int channel) {
  return (channel / SEGMENT * kTile + token) * SEGMENT + swizzle(token, channel % SEGMENT / CHUNK) * CHUNK;
}

// tile_offset(token, 16 step + channel) where base is tile_offset(token, channel), channel 0 or 8: an instruction and a constant.
DEVICE int tile_step(int base, int step) {
  return (base ^ step * 16 % SEGMENT) + step * 16 / SEGMENT * (kTile * SEGMENT);
}

// Element offset of a tile in the cache.
DEVICE i64 cache_start(const Tile& tile) {
  i64 block_head = static_cast<i64>(tile.block) * NUM_KV_HEADS + tile.head;
  return block_head * (BLOCK_SIZE * HEAD_DIM) + tile.first % BLOCK_SIZE * SEGMENT;
}

struct Stage {
  Element* keys;
  Element* values;
};

struct Ring {
  Element* elements;  // [NUM_STAGES][keys, values][kTileElements]
  Tile* tiles;        // [NUM_STAGES]
  u64* barriers;      // [NUM_STAGES]

  DEVICE Stage stage(int index) const {
    Element* keys = elements + index * 2 * kTileElements;
    return {keys, keys + kTileElements};
  }

#if __CUDA_ARCH__ >= 900

  DEVICE void init() const {
    if (lane_id() < NUM_STAGES) barrier_init(barriers + lane_id(), 1);
    barrier_init_fence();
    __syncwarp();
  }
  // `lane` has the tile. Its description may be read after the next __syncwarp.
  DEVICE void fill(int index, const Tile& tile, int lane, const Element* keys, const Element* values) const {
    if (lane_id() != lane) return;
    Stage to = stage(index);
    i64 from = cache_start(tile);
    int num_tokens = min(tile.context - tile.first, kTile);  // what a stage holds behind them is never looked at
    bool whole = num_tokens == kTile;
    int num_pieces = whole ? kPieces : NUM_SEGMENTS, elements = whole ? kPieceElements : num_tokens * SEGMENT;
    tiles[index] = tile;
    barrier_arrive_expect(barriers + index, 2 * num_pieces * elements * sizeof(Element));
#pragma unroll 1
    for (int piece = 0; piece < num_pieces; ++piece) {
      int target = piece * (kTile * SEGMENT);
      i64 source = from + piece * (BLOCK_SIZE * SEGMENT);
      bulk_load(to.keys + target, keys + source, elements * sizeof(Element), barriers + index);
      bulk_load(to.values + target, values + source, elements * sizeof(Element), barriers + index);
    }
  }
  DEVICE void fill_nothing() const {}
  // Until a stage has come; `parity` of the rounds through the ring.
  DEVICE void wait(int index, u32 parity) const { barrier_wait(barriers + index, parity); }

#else

  DEVICE void init() const {}
  DEVICE void fill(int index, const Tile& tile, int lane, const Element* keys, const Element* values) const {
    if (lane_id() == lane) tiles[index] = tile;
    __syncwarp();
    Stage to = stage(index);
    i64 from = cache_start(tiles[index]);
#pragma unroll 4
    for (int target = lane_id() * CHUNK; target < kTileElements; target += WARP * CHUNK) {
      i64 source = from + target / kPieceElements * (BLOCK_SIZE * SEGMENT) + target % kPieceElements;
      copy_async16(to.keys + target, keys + source, true);
      copy_async16(to.values + target, values + source, true);
    }
    copy_async_commit();
  }
  // Keeps the count of groups that wait relies on.
  DEVICE void fill_nothing() const { copy_async_commit(); }
  DEVICE void wait(int, u32) const {
    copy_async_wait<NUM_STAGES - 1>();
    __syncwarp();
  }

#endif
};

// Whether a tile's keys and values were there before the step, in one whose rows compute one token each. A row writes to its last block.
// The block before it may be another row's last one: a block is shared from the step on in which it is filled.
DEVICE bool is_old(const Tile& tile) {
  return tile.first / BLOCK_SIZE + 1 < (tile.context - 1) / BLOCK_SIZE;
}

// Walks over a warp's tiles ahead of the computation. Each lane looks one tile up, 32 tiles at a time.
struct Loader {
  Rounds rounds;
  Rows rows;
  Ring ring;
  const Element* keys;
  const Element* values;
  int round, next, end;        // next place, end of the warp's range in this round
  int found_begin, found_end;  // places whose tiles the lanes have
  Tile found;

  // The places of this warp in a round.
  DEVICE Range range(int index) const {
    Range block = rounds.range(index);
    Range mine = Split(block.end - block.begin, NUM_WARPS).range(warp_id());
    return {block.begin + mine.begin, block.begin + mine.end};
  }
  // This lane's first tile, looked up: reads nothing but the batch.
  DEVICE Tile find_first() {
    round = -1, next = end = 0;
    if (has_next()) find();
    return found;
  }
  // With what find_first found.
  DEVICE void begin(const Tile& first) {
    round = -1, next = end = 0;
    if (!has_next()) return;
    found = first;
    found_begin = next, found_end = min(next + WARP, end);
  }
  // The whole ring. only_single: no row computes more than one token, so that old tiles need not wait for the kernel before.
  DEVICE void fill(bool only_single) {
    bool waits = false;
#pragma unroll 1
    for (int i = 0; i < NUM_STAGES; ++i) {
      if (!waits && !(only_single && next_is_old())) {
        wait_for_previous_kernel();
        waits = true;
      }
      load(i);
    }
  }
  // Whether the next tile has been looked up, and is old. The same for all lanes.
  DEVICE bool next_is_old() {
    if (!has_next() || next == found_end) return false;
    return __shfl_sync(~0u, static_cast<int>(is_old(found)), next - found_begin) != 0;
  }
  // The next tile to a stage that nobody reads any more; nothing where none is left.
  DEVICE void load(int index) {
    if (!has_next()) {
      ring.fill_nothing();
      return;
    }
    if (next == found_end) find();
    ring.fill(index, found, next - found_begin, keys, values);
    ++next;
  }

 private:
  DEVICE bool has_next() {
    while (next == end && round + 1 < rounds.count) {
      Range mine = range(++round);
      next = found_end = mine.begin, end = mine.end;
    }
    return next < end;
  }
  DEVICE void find() {
    int last = min(next + WARP, end) - 1;
    found = find_tile(rows, min(next + lane_id(), last), next, last);
    found_begin = next, found_end = last + 1;
  }
};
