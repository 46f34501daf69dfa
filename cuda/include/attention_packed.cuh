// Queries, keys and values of packed tokens as tiles in shared memory, copied by the threads of a warpgroup: each of its warps brings a
// quarter of an item's queries; warps 0 and 1 bring every other tile of keys, warps 2 and 3 of values.
#pragma once

#include "attention_inputs.cuh"
#include "attention_sm90.cuh"

constexpr int PRODUCERS = WARPGROUP / WARP;             // warps
constexpr int TOKEN_WIDTH = 3 * NUM_HEADS * HEAD_DIM;   // elements: queries, keys, values
constexpr int SEGMENT_CHUNKS = SEGMENT / CHUNK;
constexpr int LANE_ROWS = WARP / CHUNKS;                // rows that a warp copies at once
static_assert(8 % LANE_ROWS == 0 && PRODUCERS * LANE_ROWS % 8 == 0, "the swizzle comes round after eight rows");

// What there is to do.
struct PackedWork {
  const Element* qkv;  // [tokens, TOKEN_WIDTH]
  const InputTile* tiles;
  int max_tiles;  // those behind the last have no rows
};

// Item `round` of this block. The longest come first and are dealt to and fro, so that all blocks get about as much.
DEVICE int deal(int round) {
  int block = blockIdx.x, num_blocks = gridDim.x;
  return round * num_blocks + (round % 2 == 0 ? block : num_blocks - 1 - block);
}

// This lane's word of an item's tile: it may come late, and holds one register. Zero behind the last item.
DEVICE int load_word(const PackedWork& work, int index) {
  const int* words = reinterpret_cast<const int*>(work.tiles + index / NUM_HEADS);
  return index < work.max_tiles * NUM_HEADS ? words[lane_id() % 4] : 0;
}

DEVICE InputTile collect(int word) {
  return {__shfl_sync(~0u, word, 0), __shfl_sync(~0u, word, 1), __shfl_sync(~0u, word, 2), __shfl_sync(~0u, word, 3)};
}

// A tile's rows with one head. Positions and keys are places in the input, slot is its first token.
DEVICE Item make_item(const InputTile& tile, int head) {
  Item item;
  item.first_token = tile.start + tile.first;
  item.num_tokens = tile.num_rows;
  item.first_position = tile.first;
  item.first_key = WINDOW == 0 ? 0 : max(0, tile.first - WINDOW / 2);
  item.end_key = WINDOW == 0 ? tile.num_tokens : min(tile.num_tokens, tile.first + tile.num_rows + WINDOW / 2);
  item.kv_head = head;
  item.slot = tile.start;
  return item;
}

// What a warp has copied, and lets one barrier know: all of its lanes' copies but those of the last kLeft groups.
template <int kLeft>
DEVICE void finish_copies(u64* full) {
  copy_async_wait<kLeft>();
  async_proxy_fence();
  __syncwarp();
  if (lane_id() == 0) barrier_arrive(full);
}

// A warp's part of an item's queries.
DEVICE void copy_queries(u8* slot, const Element* qkv, const Item& item, int warp) {
  constexpr int kStep = PRODUCERS * LANE_ROWS;
  int row = warp * LANE_ROWS + lane_id() / CHUNKS, chunk = lane_id() % CHUNKS;
  u8* to = slot + (chunk / SEGMENT_CHUNKS * QUERY_ROWS + row) * SEGMENT_BYTES + swizzle(row, chunk % SEGMENT_CHUNKS) * 16;
  const Element* from = qkv + static_cast<i64>(item.first_token + row) * TOKEN_WIDTH + item.kv_head * HEAD_DIM + chunk * CHUNK;
#pragma unroll 4
  for (; row < item.num_tokens; row += kStep, to += kStep * SEGMENT_BYTES, from += kStep * TOKEN_WIDTH) copy_async16(to, from, true);
}

// A tile of keys or of values, `context` those of the input's first token; zeros from end_key on.
DEVICE void copy_tile(u8* to, const Element* context, const Item& item, int tile) {
  constexpr int kStep = 32;
  int row = lane_id() / CHUNKS, chunk = lane_id() % CHUNKS, first = tile * KEY_TOKENS + row;
  int at = (chunk / SEGMENT_CHUNKS * KEY_TOKENS + row) * SEGMENT_BYTES + swizzle(row, chunk % SEGMENT_CHUNKS) * 16;
  const Element* from = context + static_cast<i64>(item.slot + first) * TOKEN_WIDTH + item.kv_head * HEAD_DIM + chunk * CHUNK;
  int num_keys = item.end_key - first;
#pragma unroll 1
  for (int i = 0; i < KEY_TOKENS; i += kStep, to += kStep * SEGMENT_BYTES, from += kStep * TOKEN_WIDTH, num_keys -= kStep)
#pragma unroll
    for (int j = 0; j < kStep; j += LANE_ROWS)
      copy_async16(to + (at ^ j % 8 * 16) + j * SEGMENT_BYTES, from + j * TOKEN_WIDTH, j < num_keys);
}

// A warp's part of all of a block's items; warp 0 says what they are. An item without tokens is the last.
DEVICE void run_producer(Shared& shared, const PackedWork& work, int warp) {
  bool of_keys = warp < PRODUCERS / 2;
  u8(*tiles)[TILE_BYTES] = of_keys ? shared.keys : shared.values;
  u64 *full = of_keys ? shared.keys_full : shared.values_full, *empty = of_keys ? shared.keys_empty : shared.values_empty;
  const Element* context = work.qkv + (of_keys ? 1 : 2) * NUM_HEADS * HEAD_DIM;
  Ring<QUERY_SLOTS> slot;
  Ring<STAGES> stage;
  int round = 0, index = deal(0), word = load_word(work, index);
  for (bool mine = warp % 2 == 0;; slot = slot.after()) {
    Item item = make_item(collect(word), index % NUM_HEADS);
    if (item.num_tokens == 0) break;
    index = deal(++round);
    word = load_word(work, index);  // long before it is needed
    u64* queries_full = &shared.queries_full[slot.place];
    barrier_wait(&shared.queries_empty[slot.place], slot.parity ^ 1);
    if (warp == 0 && lane_id() == 0) shared.items[slot.place] = item;
    copy_queries(shared.queries[slot.place], work.qkv, item, warp);
    copy_async_commit();
    bool told = false;
    for (int tile = end_tile(item) - 1; tile >= first_tile(item); tile--, stage = stage.after(), mine = !mine) {
      if (!mine) continue;
      barrier_wait(empty + stage.place, stage.parity ^ 1);
      copy_tile(tiles[stage.place], context, item, tile);
      copy_async_commit();
      if (!told) finish_copies<1>(queries_full);
      told = true;
      finish_copies<0>(full + stage.place);
    }
    if (!told) finish_copies<0>(queries_full);
  }
  barrier_wait(&shared.queries_empty[slot.place], slot.parity ^ 1);
  if (warp == 0 && lane_id() == 0) shared.items[slot.place].num_tokens = 0;
  __syncwarp();
  release(&shared.queries_full[slot.place]);
}
