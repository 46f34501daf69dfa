// Prefix sums over a block's threads, and which of a launch's blocks comes last.
#pragma once

#include "types.cuh"

constexpr u32 kAllLanes = 0xffffffffu;

DEVICE int warp_inclusive_sum(int value) {
#pragma unroll
  for (int offset = 1; offset < WARP; offset *= 2) {
    int below = __shfl_up_sync(kAllLanes, value, offset);
    if (lane_id() >= offset) value += below;
  }
  return value;
}

// Exclusive prefix sums of kValues values at once, in place; totals are the whole block's. All threads of the block call it, and the
// block is whole warps.
template <int kValues>
DEVICE void block_scan(int (&values)[kValues], int (&totals)[kValues]) {
  __shared__ int warp_sums[kValues][WARP];
  int lane = lane_id(), warp = warp_id(), num_warps = blockDim.x / WARP;
  int own[kValues];
#pragma unroll
  for (int v = 0; v < kValues; v++) {
    own[v] = values[v];
    values[v] = warp_inclusive_sum(values[v]);
  }
  __syncthreads();  // the sums of a scan before this one have been read
#pragma unroll
  for (int v = 0; v < kValues; v++)
    if (lane == WARP - 1) warp_sums[v][warp] = values[v];
  __syncthreads();
#pragma unroll
  for (int v = 0; v < kValues; v++) {
    int sum = warp_inclusive_sum(lane < num_warps ? warp_sums[v][lane] : 0);
    int before = __shfl_sync(kAllLanes, sum, max(warp - 1, 0));
    totals[v] = __shfl_sync(kAllLanes, sum, WARP - 1);
    values[v] += (warp > 0 ? before : 0) - own[v];
  }
}

// True in the one block that gets here when all the others have; it sees what they wrote, and has to set arrivals back to 0.
DEVICE bool arrives_last(int* arrivals) {
  __shared__ int is_last;
  __syncthreads();
  if (threadIdx.x == 0) {
    __threadfence();
    is_last = atomicAdd(arrivals, 1) == static_cast<int>(gridDim.x * gridDim.y) - 1;
  }
  __syncthreads();
  if (is_last) __threadfence();
  return is_last;
}
