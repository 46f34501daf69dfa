// Causal attention of the rows with several tokens this step over their paged context, by mma.sync.
//
// A tile's rows are PROMPT_TILE tokens times the GROUP query heads that share a KV head, so keys and values are read once for the
// group; it is cut into parts of kTileM rows. Blocks stay and take one (tile, KV head, part) after the other from a counter, a row's
// last tiles, which see most, first.
#include "attention_mma.cuh"

constexpr int GROUP = NUM_HEADS / NUM_KV_HEADS;
constexpr int kQkvWidth = (NUM_HEADS + 2 * NUM_KV_HEADS) * HEAD_DIM;
constexpr int kParts = (PROMPT_TILE * GROUP + kTileM - 1) / kTileM;

// A launch's parameters.
struct PromptBatch {
  const Element *qkv, *keys, *values;
  const int *query_starts, *context_lens, *row_slots, *block_tables, *prompt_starts, *counts;
  int max_blocks;
  Element* out;
};

// Some rows of a tile of one KV head.
struct PromptPart {
  const int* block_table;
  int kv_head;
  int token;      // the tile's first, in the batch
  int position;   // and in its row
  int first_row;  // of the part in the tile
  int num_rows;   // of the part that exist
};

// The last row whose tiles begin at or before `tile`: starts[row] <= tile < starts[row + 1]. By the whole warp.
DEVICE int row_of_tile(const int* starts, int num_rows, int tile) {
  int low = 0, size = num_rows;
  while (size > 1) {
    int step = ceil_div(size, WARP), place = lane_id() * step;
    bool before = place < size && __ldg(starts + low + place) <= tile;
    int skipped = (__popc(__ballot_sync(~0u, before)) - 1) * step;
    low += skipped;
    size = min(step, size - skipped);
  }
  return low;
}

// The attention Source.
struct PromptSource {
  static constexpr bool kMayBeEmpty = kParts > 1;
  const PromptBatch& batch;
  PromptPart& part;

  // Items count from the heaviest tile on.
  DEVICE void find(int item) const {
    int tile = batch.counts[3] - 1 - item / (NUM_KV_HEADS * kParts), first_row = item % kParts * kTileM;
    int row = row_of_tile(batch.prompt_starts, batch.counts[0], tile);
    int first = (tile - batch.prompt_starts[row]) * PROMPT_TILE;
    int start = batch.query_starts[row], num_tokens = batch.query_starts[row + 1] - start;
    if (lane_id() != 0) return;
    part.block_table = batch.block_tables + static_cast<i64>(batch.row_slots[row]) * batch.max_blocks;
    part.kv_head = item / kParts % NUM_KV_HEADS;
    part.token = start + first;
    part.position = batch.context_lens[row] - num_tokens + first;
    part.first_row = first_row;
    part.num_rows = min(min(PROMPT_TILE, num_tokens - first) * GROUP - first_row, kTileM);
  }
  DEVICE int num_rows() const { return part.num_rows; }
  DEVICE int end() const { return span(part.num_rows - 1).end; }
  DEVICE int token_of(int row) const { return (part.first_row + row) / GROUP; }
  DEVICE int head_of(int row) const { return part.kv_head * GROUP + (part.first_row + row) % GROUP; }
  DEVICE Span span(int row) const {
    int end = part.position + token_of(row) + 1;
    return {WINDOW > 0 ? max(end - WINDOW, 0) : 0, end};
  }
  DEVICE const Element* query(int row) const {
    return batch.qkv + static_cast<i64>(part.token + token_of(row)) * kQkvWidth + head_of(row) * HEAD_DIM;
  }
  DEVICE Element* out(int row) const {
    return batch.out + (static_cast<i64>(part.token + token_of(row)) * NUM_HEADS + head_of(row)) * HEAD_DIM;
  }
  DEVICE void load_keys(Element* to, int key) const { load(to, batch.keys, key); }
  DEVICE void load_values(Element* to, int key) const { load(to, batch.values, key); }

  // Chunks lie in shared memory as they lie in the cache: both permute them by the token's last three bits.
  DEVICE void load(Element* to, const Element* from, int key) const {
    int thread = fresh_thread(), chunk = thread % kSegmentChunks * CHUNK, kv_head = part.kv_head, num_keys = end() - key;
    const int* block_table = part.block_table;
#pragma unroll
    for (int i = 0; i < kTileN * kSegmentChunks / kNumThreads; ++i) {
      int place = i * (kNumThreads / kSegmentChunks) + thread / kSegmentChunks, token = key + place;
      bool exists = place < num_keys;
      i64 block = exists ? __ldg(block_table + token / BLOCK_SIZE) : 0;
      const Element* head = from + (block * NUM_KV_HEADS + kv_head) * (BLOCK_SIZE * HEAD_DIM);
#pragma unroll
      for (int segment = 0; segment < NUM_SEGMENTS; ++segment)
        copy_async16(to + (segment * kTileN + place) * SEGMENT + chunk,
                     head + (segment * BLOCK_SIZE + token % BLOCK_SIZE) * SEGMENT + chunk, exists);
    }
  }
};

// qkv Element [tokens, kQkvWidth], queries rotated; keys and values in cache.cuh's layout; block_tables int32 [slots, max_blocks];
// out Element [tokens, NUM_HEADS * HEAD_DIM], written for the tokens of the rows in prompt_starts only.
// counters: see attend_items.
extern "C" __global__ void __launch_bounds__(kNumThreads, 2)
    prompt_attention(const Element* qkv, const Element* keys, const Element* values, const int* query_starts,
                     const int* context_lens, const int* row_slots, const int* block_tables, const int* prompt_starts,
                     const int* counts, int max_blocks, float scale, float softcap, int* counters, Element* out) {
  SHARED_BYTES(bytes);
  __shared__ PromptPart part;
  PromptBatch batch{qkv,          keys,          values, query_starts, context_lens, row_slots,
                    block_tables, prompt_starts, counts, max_blocks,   out};
  wait_for_previous_kernel();
  let_next_kernel_begin();
  attend_items(PromptSource{batch, part}, counts[3] * NUM_KV_HEADS * kParts, bytes, scale, softcap, counters);
}
