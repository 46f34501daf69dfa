// The tiles that each warp of decode attention begins with, a lane one: looked up once a step, for all of its layers. To find a row on the
// line, its slot and its block takes up to seven reads, each of which needs the one before; to read what was found takes one.
//
// Grid, block and defines: decode_attention.cu's. tiles [grid, block]; a lane that has none writes anything.
#include "decode_ring.cuh"

extern "C" __global__ void __launch_bounds__(NUM_WARPS* WARP) find_tiles(
    const int4* counts, int bucket_rows, const int* starts, const int* query_starts, const int* context_lens, const int* row_slots,
    const int* block_tables, int max_blocks, Tile* tiles) {
  wait_for_previous_kernel();
  let_next_kernel_begin();
  Rows rows = {bucket_rows, starts, query_starts, context_lens, row_slots, block_tables, max_blocks, 0};
  rows.look();
  int4 sizes = *counts;  // rows, tokens, decode tiles, prompt tiles
  Rounds rounds(rows, sizes.x, sizes.z);
  Loader loader = {rounds, rows, {nullptr, nullptr, nullptr}, nullptr, nullptr};
  tiles[blockIdx.x * (NUM_WARPS * WARP) + threadIdx.x] = loader.find_first();
}
