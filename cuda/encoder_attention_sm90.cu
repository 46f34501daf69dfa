// Attention of packed inputs whose tokens see each other, on Hopper's warpgroup products: what encoder_attention.cu computes, for heads of
// 64 and 128 channels.
//
// An item is up to QUERY_ROWS tokens of one input with one head. A block stays, and its items are settled by its place. With heads of 64
// channels the products of a tile of keys take as long as its exponentials, KEY_TOKENS * CONSUMER_ROWS / 16 cycles a warpgroup.
#define BLOCK_SIZE 16  // cache.cuh wants one; nothing is paged here
#define NUM_KV_HEADS NUM_HEADS
#include "attention_packed.cuh"
#include "attention_store.cuh"
#include "attention_units.cuh"

// Tiles of whole units, as many in each tile of an input as in the others, or one more.
struct UnitCut {
  int max_units;  // of a tile

  DEVICE int num_tiles(int num_tokens) const { return ceil_div(ceil_div(num_tokens, CONSUMER_ROWS), max_units); }
  DEVICE int first(int num_tokens, int i) const {
    return ceil_div(num_tokens, CONSUMER_ROWS) * i / num_tiles(num_tokens) * CONSUMER_ROWS;
  }
};

// The smallest tiles of which each gets a block of its own; the largest where there is too much work for that. By a block.
DEVICE UnitCut pick_cut(const int* starts, int num_inputs, int num_blocks) {
  __shared__ int counts[CONSUMERS];  // of tiles, by their units less one
  if (threadIdx.x < CONSUMERS) counts[threadIdx.x] = 0;
  __syncthreads();
  for (int i = threadIdx.x; i < num_inputs; i += blockDim.x)
    for (int j = 0; j < CONSUMERS; j++) atomicAdd(&counts[j], UnitCut{j + 1}.num_tiles(starts[i + 1] - starts[i]));
  __syncthreads();
  int max_units = 1;
  while (max_units < CONSUMERS && counts[max_units - 1] * NUM_HEADS > num_blocks) max_units++;
  return {max_units};
}

// One block. Tiles behind the last have no rows; max_tiles: starts[num_inputs] / CONSUMER_ROWS + num_inputs at least. num_blocks: that
// work on them at once. Once a batch, for all layers.
extern "C" __global__ void __launch_bounds__(1024)
    plan_encoder_attention(const int* starts, int num_inputs, int num_blocks, InputTile* tiles, int max_tiles, int* num_tiles) {
  wait_for_previous_kernel();
  int total = plan_tiles(starts, num_inputs, pick_cut(starts, num_inputs, num_blocks), tiles, num_tiles);
  for (int i = total + threadIdx.x; i < max_tiles; i += blockDim.x) tiles[i] = {0, 0, 0, 0};
}

DEVICE void run_consumer(Shared& shared, Consumer consumer, Element* out) {
  int num_taken = 0;  // units of the items before, modulo CONSUMERS
  if (consumer.index == CONSUMERS - 1) give_turn(consumer.index);
  for (Ring<QUERY_SLOTS> slot;; slot = slot.after()) {
    barrier_wait(&shared.queries_full[slot.place], slot.parity);
    Item item = shared.items[slot.place];
    if (item.num_tokens == 0) break;
    int num_units = ceil_div(item.num_tokens, CONSUMER_ROWS), index = (consumer.index + CONSUMERS - num_taken) % CONSUMERS;
    num_taken = (num_taken + num_units) % CONSUMERS;
    int first = first_tile(item), end = end_tile(item);
    if (index >= num_units) {
      __syncwarp();
      release(&shared.queries_empty[slot.place]);
      pass_tiles(shared, consumer, end - first, end - first - 1);
      continue;
    }
    Unit unit = make_unit(item, index);
    int row = unit.first_row + warp_id() % 4 * 16 + lane_id() / 4;
    Output sums = {};
    Softmax softmax;
    pass_tiles(shared, consumer, end - unit.end, end - unit.end);
    attend_unit(sums, softmax, shared, consumer, unit, make_view(item, unit, row), slot.place);
    pass_tiles(shared, consumer, unit.first - first, unit.first - first);
    store_output(out, sums, softmax, item, row);
  }
  if (consumer.index == 0) wait_for_turn(0);  // the turn that nobody takes
}

// Grid: as many blocks as the plan was made for, or as there are items, of a warpgroup that copies and CONSUMERS that compute. qkv Element
// [tokens, 3 * NUM_HEADS * HEAD_DIM], out Element [tokens, NUM_HEADS * HEAD_DIM]. factor: log2(e) times the scores' scale.
extern "C" __global__ void __launch_bounds__((1 + CONSUMERS) * WARPGROUP, 1)
    encoder_attention(const Element* qkv, const InputTile* tiles, int max_tiles, float factor, Element* out) {
  SHARED_BYTES(bytes);
  Shared& shared = *reinterpret_cast<Shared*>(bytes);
  if (threadIdx.x == 0) init_barriers(shared, PRODUCERS, 0);
  __syncthreads();
  wait_for_previous_kernel();
  let_next_kernel_begin();
  int warp = __shfl_sync(~0u, warp_id(), 0);  // so that the compiler knows it to be the same in all lanes
  if (warp < WARPGROUP / WARP) {
    give_registers<CONSUMERS == 3 ? 32 : 56>();
    run_producer(shared, PackedWork{qkv, tiles, max_tiles}, warp);
  } else {
    take_registers<CONSUMERS == 3 ? 160 : 224>();
    run_consumer(shared, Consumer{warp * WARP / WARPGROUP - 1, 0.f, factor, {}}, out);
  }
}
