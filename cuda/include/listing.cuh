// The few tokens of a row that are looked at again, found in one pass over it by the blocks that share it.
#pragma once

#include "vocab_row.cuh"

constexpr int kNumClasses = THREADS;
constexpr int kMaxClassRank = kNumClasses / 2;  // of the classes' largest, which logits are listed down to

struct Part {
  int begin, end;  // groups
};

// The number of parts is a power of two.
DEVICE int parts_shift() { return __ffs(gridDim.y) - 1; }

DEVICE Part own_part() {
  int size = (kNumGroups + static_cast<int>(gridDim.y) - 1) >> parts_shift();
  int begin = min(static_cast<int>(blockIdx.y) * size, kNumGroups);
  return {begin, min(begin + size, kNumGroups)};
}

struct Listed {
  float logit;
  int token;
};

// Every part has its share of the classes.
DEVICE void store_classes(float top, float* classes) {
  top = warp_reduce(top, gridDim.y, [](float a, float b) { return max(a, b); });
  if ((threadIdx.x & (gridDim.y - 1)) == 0) classes[(blockIdx.y * THREADS + threadIdx.x) >> parts_shift()] = top;
}

// A logit that at least `rank` tokens reach, and few more: the rank-th largest of the classes'.
DEVICE float floor_of_top(const float* classes, int rank) {
  __shared__ __align__(16) float values[kNumClasses];
  __shared__ float found;
  float mine = classes[threadIdx.x];
  values[threadIdx.x] = mine;
  __syncthreads();
  int num_above = 0, num_reaching = 0;
  for (int i = 0; i < kNumClasses; i += kGroup) {
    float4 x = *reinterpret_cast<const float4*>(values + i);
    num_above += (x.x > mine) + (x.y > mine) + (x.z > mine) + (x.w > mine);
    num_reaching += (x.x >= mine) + (x.y >= mine) + (x.z >= mine) + (x.w >= mine);
  }
  if (num_above < rank && rank <= num_reaching) found = mine;
  __syncthreads();
  return max(found, -kLargest);
}

struct List {
  Listed* entries;  // [MAX_LISTED]
  int* num_listed;  // more than MAX_LISTED where not all could be kept

  DEVICE void put(float logit, int token) const {
    int place = atomicAdd(num_listed, 1);
    if (place < MAX_LISTED) entries[place] = {logit, token};
  }
};

// All parts' lists go to one in global memory; the block that comes last takes that for its own.
DEVICE void store_list(const List& list, int* num_listed, Listed* entries) {
  __shared__ int offset;
  int num_own = min(*list.num_listed, MAX_LISTED);
  if (threadIdx.x == 0) offset = num_own > 0 ? atomicAdd(num_listed, *list.num_listed) : 0;
  __syncthreads();
  for (int i = threadIdx.x; i < num_own && offset + i < MAX_LISTED; i += THREADS) entries[offset + i] = list.entries[i];
}

// Leaves *num_listed at 0.
DEVICE void load_list(const List& list, int* num_listed, const Listed* entries) {
  int num_all = *num_listed;
  for (int i = threadIdx.x; i < min(num_all, MAX_LISTED); i += THREADS) list.entries[i] = entries[i];
  __syncthreads();
  if (threadIdx.x == 0) *list.num_listed = num_all, *num_listed = 0;
  __syncthreads();
}
