// Where the slices of a group of cuda/skinny_wide.cu meet.
#pragma once

#include "skinny_sums.cuh"

// Where a group's slices meet: float4 [kGroups, SLICES, TILES, kThreads], and how many of a group have come, int32 [kGroups], 0 between launches.
struct Meeting {
  float4* parts;
  int* counters;

  DEVICE float4* part(int group, int slice, int tile) const {
    return parts + ((group * SLICES + slice) * TILES + tile) * kThreads + threadIdx.x;
  }

  // Whether the block's item is the last of its group, whose parts this one then may read.
  DEVICE bool come(Shared& shared, int group) const {
    __threadfence();  // what the thread has written, before the count of it
    __syncthreads();
    if (threadIdx.x == 0) {
      shared.is_last = atomicAdd(counters + group, 1) == SLICES - 1;
      if (shared.is_last) counters[group] = 0;
    }
    __syncthreads();
    bool is_last = shared.is_last;
    if (is_last) __threadfence();  // and the other slices' after it
    return is_last;
  }
};

// A slice's sums to its parts, and whether it was its group's last. Then `totals` are those of all slices, added up in their order.
DEVICE bool meet(Shared& shared, const Meeting& meeting, const Sums (&sums)[TILES], int item, float4 (&totals)[TILES]) {
  int group = item / SLICES;
#pragma unroll
  for (int t = 0; t < TILES; ++t) {
    share(shared, sums[t]);
    __syncthreads();
    float of[kOwn];
#pragma unroll
    for (int i = 0; i < kOwn; ++i) of[i] = sum_of_warps(shared, Spot(i).row, Spot(i).token);
    *meeting.part(group, item % SLICES, t) = make_float4(of[0], of[1], of[2], of[3]);
    __syncthreads();
  }
  if (!meeting.come(shared, group)) return false;
#pragma unroll
  for (int t = 0; t < TILES; ++t) {
    totals[t] = make_float4(0.f, 0.f, 0.f, 0.f);
#pragma unroll
    for (int slice = 0; slice < SLICES; ++slice) {
      float4 part = *meeting.part(group, slice, t);
      totals[t].x += part.x, totals[t].y += part.y, totals[t].z += part.z, totals[t].w += part.w;
    }
  }
  return true;
}

DEVICE void share(Shared& shared, const float4& total) {
  const float of[kOwn] = {total.x, total.y, total.z, total.w};
#pragma unroll
  for (int i = 0; i < kOwn; ++i) shared.sums[0][Spot(i).row][Spot(i).token] = of[i];
}
