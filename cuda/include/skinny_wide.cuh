// The product of cuda/skinny_wide.cu: several tiles of rows at a time, weights and x streamed through rings in shared memory, and what is
// done with a tile's sums left to the kernel.
#pragma once

#include "skinny_meeting.cuh"

// A group's tiles, one after the other in the same instructions: unrolled they would be many, all of them new to the multiprocessor.
template <typename Shares, typename Prepared, typename Store>
DEVICE void finish(Shared& shared, const Shares (&sums)[TILES], const Prepared (&prepared)[TILES], int first_tile, Store store) {
#pragma unroll 1
  for (int t = 0; t < TILES && (kWhole || first_tile + t < kTiles); ++t) {
    Prepared own = prepared[0];
#pragma unroll
    for (int i = 0; i < TILES; ++i) {
      if (i != t) continue;
      own = prepared[i];
      share(shared, sums[i]);
    }
    __syncthreads();
    store(shared, first_tile + t, own);
    __syncthreads();
  }
}

// Every tile of this block's groups: its sums to `store`, which all threads call with the tile's number, and with what `prepare` gave them
// for it before the sums were there. Half of the lanes bring the first weights and half the first x: the first stage waits for none of
// the others.
template <typename RowsOf, typename Begin, typename Prepare, typename Store>
DEVICE void compute(
    const Element* weight, const Element* x, int num_tokens, RowsOf rows_of, Begin begin, Prepare prepare, Store store,
    const Meeting& meeting) {
  SHARED_BYTES(bytes);
  Shared& shared = *reinterpret_cast<Shared*>(bytes);
  constexpr int kHead = (sizeof(Shared) + 127) / 128 * 128, kSome = WARP / 2;
  Element* ring = reinterpret_cast<Element*>(bytes + kHead) + warp_id() * NUM_STAGES * kStageElements;
  Loader<RowsOf> loader(weight, x, num_tokens, ring, rows_of), early = loader;
#pragma unroll 1
  for (int i = 0; i < NUM_STAGES - 1; ++i) early.template load<true, false, kSome>(lane_id());
  wait_for_previous_kernel();  // the weights do not depend on it
#pragma unroll 1
  for (int i = 0; i < NUM_STAGES - 1; ++i) loader.template load<false, true, kSome>(lane_id() - kSome);
  begin(shared);
  __syncthreads();
  int slot = 0;
  for (int item = blockIdx.x; item < kItems; item += gridDim.x) {
    if (item + gridDim.x >= kItems) let_next_kernel_begin();
    int first_tile = item / SLICES * TILES;
    decltype(prepare(shared, 0)) prepared[TILES];
#pragma unroll
    for (int t = 0; t < TILES; ++t) prepared[t] = prepare(shared, first_tile + t);
    Sums sums[TILES] = {};
    for (int stage = warp_id(); stage < kStages; stage += kWarps) {
      copy_async_wait<NUM_STAGES - 2>();
      __syncwarp();
      loader.template load<true, true, WARP>(lane_id());
      multiply(sums, ring + slot * kStageElements);
      slot = slot + 1 == NUM_STAGES ? 0 : slot + 1;
      __syncwarp();
    }
    if (SLICES == 1) {
      finish(shared, sums, prepared, first_tile, store);
    } else {
      float4 totals[TILES];
      if (meet(shared, meeting, sums, item, totals)) finish(shared, totals, prepared, first_tile, store);
    }
  }
}

struct Nothing {};

struct NoBegin {
  DEVICE void operator()(Shared& shared) const {}
};
struct NoPrepare {
  DEVICE Nothing operator()(const Shared& shared, int tile) const { return {}; }
};
