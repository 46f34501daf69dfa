// Attention of rows with several tokens this step over their paged context, causal, on Hopper's warpgroup products.
//
// An item is QUERY_TOKENS tokens of one row with all query heads of one KV head, so that keys and values are read once a group.
// Blocks live as long as there are items; a row's longest items come first. Time is bound by the tensor cores: 4 * HEAD_DIM flops a
// query head for each key that a token sees.
#define CONSUMERS 2
#include "attention_consumer.cuh"
#include "attention_paged.cuh"
#include "attention_store.cuh"

// The step's rows, as DeviceBatch has them.
struct Rows {
  const int *query_starts, *context_lens, *row_slots, *prompt_starts, *counts;
};

constexpr int CACHED_BYTES = 24 << 20;  // keys and values that stay in the second level cache while all blocks go over them

// The row that has this tile of queries: the last whose tiles start at or before it. By a whole warp.
DEVICE int find_row(const int* starts, int num_rows, int tile) {
  int low = 0, end = num_rows;
  while (end - low > 1) {
    int stride = ceil_div(end - low, WARP), probe = low + lane_id() * stride;
    bool before = probe < end && __ldg(starts + probe) <= tile;
    low += (__popc(__ballot_sync(~0u, before)) - 1) * stride;
    end = min(end, low + stride);
  }
  return low;
}

// Heads of a row whose items are taken side by side: as many as the cache holds, so that the longest items of all of them come first.
DEVICE int heads_at_once(int context) {
  int fitting = max(1, min(NUM_KV_HEADS, CACHED_BYTES / (context * HEAD_DIM * 4)));
  return ceil_div(NUM_KV_HEADS, ceil_div(NUM_KV_HEADS, fitting));
}

// Item `index` of all rows: within a row, some heads after the others; within those, the last tile of queries first. By a whole warp.
DEVICE Item find_item(const Rows& rows, int index) {
  int row = find_row(rows.prompt_starts, rows.counts[0], index / NUM_KV_HEADS);
  int first_tile = rows.prompt_starts[row], num_tiles = rows.prompt_starts[row + 1] - first_tile;
  int start = rows.query_starts[row], count = rows.query_starts[row + 1] - start, context = rows.context_lens[row];
  int heads = heads_at_once(context), place = index - first_tile * NUM_KV_HEADS;
  int first_head = place / (num_tiles * heads) * heads;
  heads = min(heads, NUM_KV_HEADS - first_head);
  place -= first_head * num_tiles;
  int first = (num_tiles - 1 - place / heads) * QUERY_TOKENS;
  Item item;
  item.first_token = start + first;
  item.num_tokens = min(QUERY_TOKENS, count - first);
  item.first_position = context - count + first;
  item.first_key = WINDOW == 0 ? 0 : max(0, item.first_position - WINDOW + 1);
  item.end_key = item.first_position + item.num_tokens;
  item.kv_head = first_head + place % heads;
  item.slot = rows.row_slots[row];
  return item;
}

// Hands an item to the other warps.
DEVICE void post_item(Shared& shared, Ring<QUERY_SLOTS>& slot, const Item& item) {
  barrier_wait(&shared.queries_empty[slot.place], slot.parity ^ 1);
  if (lane_id() == 0) {
    shared.items[slot.place] = item;
    barrier_arrive(&shared.item_full[slot.place]);
  }
  slot = slot.after();
}

// The last block to run out of items leaves both counters at 0, for the next launch.
DEVICE void leave(int* counters) {
  if (lane_id() == 0 && atomicAdd(counters + 1, 1) == static_cast<int>(gridDim.x) - 1) counters[0] = counters[1] = 0;
}

// Finds items and brings their keys, until there is no more work.
DEVICE void run_keys(Shared& shared, const Rows& rows, const PagedContext& context, int* counters) {
  TileRing ring = {shared.keys, shared.keys_full, shared.keys_empty, {}};
  Ring<QUERY_SLOTS> slot;
  int num_items = rows.counts[3] * NUM_KV_HEADS, upcoming = 0;
  for (int index = blockIdx.x; index < num_items; index = gridDim.x + __shfl_sync(~0u, upcoming, 0)) {
    if (lane_id() == 0) upcoming = atomicAdd(counters, 1);  // long before it is needed
    Item item = find_item(rows, index);
    post_item(shared, slot, item);
    load_context<false>(ring, context, item);
  }
  leave(counters);
  let_next_kernel_begin();
  post_item(shared, slot, Item{});
}

// Row `row` of an item is head row % GROUP of the group at token row / GROUP; rows behind the last token see what it sees.
DEVICE int position(const Item& item, int row) { return item.first_position + min(row / GROUP, item.num_tokens - 1); }

DEVICE View causal_view(const Item& item, int first_row, int row) {
  View view;
#pragma unroll
  for (int half = 0; half < 2; half++) {
    view.last[half] = position(item, row + 8 * half);
    view.first[half] = view.last[half] - WINDOW + 1;
  }
  view.all_last = position(item, first_row);
  view.all_first = position(item, first_row + CONSUMER_ROWS - 1) - WINDOW + 1;
  return view;
}

DEVICE void run_consumer(Shared& shared, Consumer consumer, Element* out) {
  int first_row = consumer.index * CONSUMER_ROWS, row = first_row + warp_id() % 4 * 16 + lane_id() / 4;
  if (consumer.index == 1) give_turn(1);
  for (Ring<QUERY_SLOTS> slot;; slot = slot.after()) {
    barrier_wait(&shared.queries_full[slot.place], slot.parity);
    Item item = shared.items[slot.place];
    if (item.num_tokens == 0) break;
    Output sums = {};
    Softmax softmax;
    attend(sums, softmax, shared, consumer, item, causal_view(item, first_row, row), slot.place);
    store_output(out, sums, softmax, item, row);
  }
  if (consumer.index == 0) wait_for_turn(0);  // the turn that nobody takes
}

// Grid: any number of blocks of 384 threads, one a multiprocessor. qkv Element [tokens, (NUM_HEADS + 2 NUM_KV_HEADS) * HEAD_DIM], out
// Element [tokens, NUM_HEADS * HEAD_DIM], block_tables int32 [slots, max_blocks], counters int32 [2], both 0 before and after.
// factor: log2(e) times the scores' scale; with SOFTCAP log2(e) times the cap, and squash_factor is 2 log2(e) scale / cap.
extern "C" __global__ void __launch_bounds__((1 + CONSUMERS) * WARPGROUP, 1)
    prompt_attention(const Element* qkv, const Element* keys, const Element* values, Element* out, const int* query_starts,
                     const int* context_lens, const int* block_tables, const int* row_slots, const int* prompt_starts, const int* counts,
                     int* counters, int max_blocks, float factor, float squash_factor) {
  SHARED_BYTES(bytes);
  Shared& shared = *reinterpret_cast<Shared*>(bytes);
  if (threadIdx.x == 0) init_barriers(shared, LOADERS, VALUE_WARPS);
  __syncthreads();
  wait_for_previous_kernel();
  int warp = __shfl_sync(~0u, warp_id(), 0);  // so that the compiler knows it to be the same in all lanes
  if (warp < WARPGROUP / WARP) {
    give_registers<56>();
    if (warp == 0)
      run_keys(shared, Rows{query_starts, context_lens, row_slots, prompt_starts, counts}, PagedContext{keys, block_tables, max_blocks},
               counters);
    else if (warp == 1)
      run_values(shared, PagedContext{values, block_tables, max_blocks});
    else
      run_loader(shared, qkv, threadIdx.x - 2 * WARP);
  } else {
    take_registers<224>();
    run_consumer(shared, Consumer{warp * WARP / WARPGROUP - 1, squash_factor, factor, {}}, out);
  }
}
