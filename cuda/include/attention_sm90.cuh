// Fused attention on warpgroups: what a block keeps in shared memory, and how its warps hand it to each other.
//
// The first warpgroup finds work items and brings what they need, the others are consumers and take 64 of an item's query rows each.
// Defines: CONSUMERS (warpgroups), KEY_TOKENS (of a tile: 64 or 128), STAGES (tiles of keys and of values in shared memory), QUERY_SLOTS
// (items whose queries are).
#pragma once

#include "cache.cuh"
#include "ptx.cuh"
#include "wgmma.cuh"

constexpr int GROUP = NUM_HEADS / NUM_KV_HEADS;
constexpr int CONSUMER_ROWS = 64;  // query rows of each: (token, head of the group) pairs
constexpr int QUERY_ROWS = CONSUMERS * CONSUMER_ROWS;
constexpr int QUERY_TOKENS = QUERY_ROWS / GROUP;  // of an item; a group that does not divide the rows leaves the last ones unused
constexpr int SEGMENT_BYTES = 2 * SEGMENT;        // of one token or query row: what the swizzle works on
constexpr int TILE_BYTES = KEY_TOKENS * HEAD_DIM * 2;
constexpr int CHUNKS = HEAD_DIM / CHUNK;

static_assert(SEGMENT == 64, "wgmma takes tiles with the 128-byte swizzle");

// Queries of one row that share a KV head, and the keys that they may see.
struct Item {
  int first_token;         // in the packed batch
  int num_tokens;          // 0: there is no more work
  int first_position;      // of first_token in its context
  int first_key, end_key;  // places in the context; tiles of keys begin at multiples of KEY_TOKENS
  int kv_head;
  int slot;  // of the row, where the keys are found
};

DEVICE int first_tile(const Item& item) { return item.first_key / KEY_TOKENS; }
DEVICE int end_tile(const Item& item) { return ceil_div(item.end_key, KEY_TOKENS); }

// Tiles are [segment][row][SEGMENT], swizzled as cache.cuh says; rows are query rows or tokens. Barriers: full, then empty, a stage.
struct alignas(1024) Shared {
  u8 queries[QUERY_SLOTS][QUERY_ROWS * HEAD_DIM * 2];
  u8 keys[STAGES][TILE_BYTES];
  u8 values[STAGES][TILE_BYTES];
  u64 keys_full[STAGES], keys_empty[STAGES];
  u64 values_full[STAGES], values_empty[STAGES];
  u64 item_full[QUERY_SLOTS], queries_full[QUERY_SLOTS], queries_empty[QUERY_SLOTS];
  Item items[QUERY_SLOTS];
};
static_assert(sizeof(Shared) == SHARED_SIZE, "the launch asks for what the kernel uses");

// A place in a ring of kPlaces; the parity is of the phase in which it is filled.
template <int kPlaces>
struct Ring {
  int place = 0;
  u32 parity = 0;

  DEVICE Ring after() const {
    bool last = place == kPlaces - 1;
    return {last ? 0 : place + 1, parity ^ static_cast<u32>(last)};
  }
};

// By one thread, before a __syncthreads. num_loaders arrive when an item's queries are there, num_readers warps beside the consumers'
// when they have read an item.
DEVICE void init_barriers(Shared& shared, int num_loaders, int num_readers) {
  constexpr int kConsumerWarps = CONSUMERS * WARPGROUP / WARP;
  for (int i = 0; i < STAGES; i++) {
    barrier_init(&shared.keys_full[i], 1);
    barrier_init(&shared.values_full[i], 1);
    barrier_init(&shared.keys_empty[i], kConsumerWarps);
    barrier_init(&shared.values_empty[i], kConsumerWarps);
  }
  for (int i = 0; i < QUERY_SLOTS; i++) {
    barrier_init(&shared.item_full[i], 1);
    barrier_init(&shared.queries_full[i], num_loaders);
    barrier_init(&shared.queries_empty[i], kConsumerWarps + num_readers);
  }
  barrier_init_fence();
}

// A warp no longer reads what the barrier guards.
DEVICE void release(u64* empty) {
  if (lane_id() == 0) barrier_arrive(empty);
}
