// Queries of packed rows, keys and values of the paged cache (cache.cuh) as tiles in shared memory. Warps 0 and 1 have the bulk copy
// engine bring keys and values, warps 2 and 3 bring queries.
#pragma once

#include "attention_sm90.cuh"

__device__ constexpr int greatest_divisor(int a, int b) { return b == 0 ? a : greatest_divisor(b, a % b); }

// A piece is a run of tokens of a tile that one block holds; a lane brings one segment of one piece.
constexpr int PIECE = greatest_divisor(BLOCK_SIZE, KEY_TOKENS);
constexpr int NUM_PIECES = KEY_TOKENS / PIECE;
constexpr int LOADERS = 2 * WARP;  // threads that bring queries
constexpr int VALUE_WARPS = 1;
static_assert(NUM_PIECES * NUM_SEGMENTS <= WARP, "a lane has one copy");

// Keys or values of one layer.
struct PagedContext {
  const Element* pool;      // [blocks, kv_heads, BLOCK_SIZE * HEAD_DIM]
  const int* block_tables;  // [slots, max_blocks]
  int max_blocks;
};

// Where a warp puts tiles.
struct TileRing {
  u8 (*tiles)[TILE_BYTES];
  u64 *full, *empty;
  Ring<STAGES> stage;
};

// The block of this lane's piece of a tile; 0 where the piece has no token before end_key.
DEVICE int piece_block(const int* blocks, const Item& item, int tile) {
  int token = tile * KEY_TOKENS + lane_id() / NUM_SEGMENTS * PIECE;
  bool used = lane_id() < NUM_PIECES * NUM_SEGMENTS && token < item.end_key;
  return used ? __ldg(blocks + token / BLOCK_SIZE) : 0;
}

// A tile up to end_key; the bytes arrive at the barrier.
DEVICE void load_tile(u8* shared, const Element* pool, const Item& item, int tile, int block, u64* full) {
  int num_tokens = min(KEY_TOKENS, item.end_key - tile * KEY_TOKENS);
  if (lane_id() == 0) barrier_arrive_expect(full, num_tokens * HEAD_DIM * 2);
  __syncwarp();
  int piece = lane_id() / NUM_SEGMENTS, segment = lane_id() % NUM_SEGMENTS;
  int mine = min(PIECE, num_tokens - piece * PIECE);
  if (piece >= NUM_PIECES || mine <= 0) return;
  int place = (tile * KEY_TOKENS + piece * PIECE) % BLOCK_SIZE;
  const Element* from = pool + (static_cast<i64>(block) * NUM_KV_HEADS + item.kv_head) * (BLOCK_SIZE * HEAD_DIM);
  bulk_load(shared + (segment * KEY_TOKENS + piece * PIECE) * SEGMENT_BYTES, from + (segment * BLOCK_SIZE + place) * SEGMENT,
            mine * SEGMENT_BYTES, full);
}

// Tokens of a tile that nothing fills: a weight of zero times what lies there must be zero.
DEVICE void clear_tokens(u8* shared, int first) {
  constexpr int kSegmentChunks = SEGMENT / CHUNK;
  int num_chunks = (KEY_TOKENS - first) * kSegmentChunks;
#pragma unroll
  for (int segment = 0; segment < NUM_SEGMENTS; segment++) {
    uint4* chunks = reinterpret_cast<uint4*>(shared + (segment * KEY_TOKENS + first) * SEGMENT_BYTES);
    for (int i = lane_id(); i < num_chunks; i += WARP) chunks[i] = make_uint4(0, 0, 0, 0);
  }
  async_proxy_fence();
}

// The tiles of an item, the last first, as that is the one to mask. kClear: what lies behind end_key becomes zero.
template <bool kClear>
DEVICE void load_context(TileRing& ring, const PagedContext& context, const Item& item) {
  const int* blocks = context.block_tables + static_cast<i64>(item.slot) * context.max_blocks;
  int tile = end_tile(item) - 1, first = first_tile(item);
  for (int next_block = piece_block(blocks, item, tile); tile >= first; tile--) {
    int block = next_block, place = ring.stage.place, num_tokens = item.end_key - tile * KEY_TOKENS;
    if (tile > first) next_block = piece_block(blocks, item, tile - 1);
    barrier_wait(ring.empty + place, ring.stage.parity ^ 1);
    if (kClear && num_tokens < KEY_TOKENS) clear_tokens(ring.tiles[place], num_tokens);
    __syncwarp();
    load_tile(ring.tiles[place], context.pool, item, tile, block, ring.full + place);
    ring.stage = ring.stage.after();
  }
}

// All items' values, until there is no more work.
DEVICE void run_values(Shared& shared, const PagedContext& context) {
  TileRing ring = {shared.values, shared.values_full, shared.values_empty, {}};
  for (Ring<QUERY_SLOTS> slot;; slot = slot.after()) {
    barrier_wait(&shared.item_full[slot.place], slot.parity);
    Item item = shared.items[slot.place];
    __syncwarp();
    release(&shared.queries_empty[slot.place]);
    if (item.num_tokens == 0) break;
    load_context<true>(ring, context, item);
  }
}

// The loaders' part, thread by thread: an item's queries (rotated already) from the packed qkv Element [tokens, QKV_WIDTH] to a slot.
DEVICE void load_queries(u8* shared, const Element* qkv, const Item& item, int thread) {
  constexpr int kWidth = (NUM_HEADS + 2 * NUM_KV_HEADS) * HEAD_DIM;
  const Element* first = qkv + static_cast<i64>(item.first_token) * kWidth + item.kv_head * GROUP * HEAD_DIM;
#pragma unroll 4
  for (int i = thread; i < QUERY_ROWS * CHUNKS; i += LOADERS) {
    int row = i / CHUNKS, chunk = i % CHUNKS;
    int token = row / GROUP, channel = row % GROUP * HEAD_DIM + chunk * CHUNK;
    int segment = chunk / (SEGMENT / CHUNK), place = swizzle(row, chunk % (SEGMENT / CHUNK));
    bool valid = token < item.num_tokens;
    const Element* from = first + (valid ? token * kWidth + channel : 0);
    copy_async16(shared + (segment * QUERY_ROWS + row) * SEGMENT_BYTES + place * 16, from, valid);
  }
  copy_async_commit();
  copy_async_wait<0>();
  async_proxy_fence();
}

// All items' queries, until there is no more work.
DEVICE void run_loader(Shared& shared, const Element* qkv, int thread) {
  Ring<QUERY_SLOTS> slot;
  for (bool more = true; more; slot = slot.after()) {
    barrier_wait(&shared.item_full[slot.place], slot.parity);
    Item item = shared.items[slot.place];
    more = item.num_tokens > 0;
    if (more) load_queries(shared.queries[slot.place], qkv, item, thread);
    barrier_arrive(&shared.queries_full[slot.place]);
  }
}
