// Packed inputs cut into tiles of queries, those of long inputs first: the work of an encoder's attention.
#pragma once

#include "scan.cuh"

constexpr int kBuckets = 128, kBucketTokens = 64;

// Some tokens of one input.
struct alignas(16) InputTile {
  int start, num_tokens;  // of the input
  int first, num_rows;    // of the tile in the input
};

// Which bucket an input's tiles go to: those that take longest are in the first.
DEVICE int bucket_of(int num_tokens) { return kBuckets - min(ceil_div(num_tokens, kBucketTokens), kBuckets); }

// By one block, whose threads know the same Cut: int num_tiles(int num_tokens), at least one, and int first(int num_tokens, int i) of
// tile i. Input i's tokens are starts[i] to starts[i + 1]; it may have none. How many tiles there are.
template <typename Cut>
DEVICE int plan_tiles(const int* starts, int num_inputs, const Cut& cut, InputTile* tiles, int* num_tiles) {
  __shared__ int places[kBuckets];
  if (threadIdx.x < kBuckets) places[threadIdx.x] = 0;
  __syncthreads();
  for (int i = threadIdx.x; i < num_inputs; i += blockDim.x) {
    int num_tokens = starts[i + 1] - starts[i];
    if (num_tokens > 0) atomicAdd(&places[bucket_of(num_tokens)], cut.num_tiles(num_tokens));
  }
  __syncthreads();
  int place[1] = {threadIdx.x < kBuckets ? places[threadIdx.x] : 0}, total[1];
  block_scan(place, total);
  if (threadIdx.x < kBuckets) places[threadIdx.x] = place[0];
  if (threadIdx.x == 0) *num_tiles = total[0];
  __syncthreads();
  for (int i = threadIdx.x; i < num_inputs; i += blockDim.x) {
    int start = starts[i], num_tokens = starts[i + 1] - start;
    if (num_tokens <= 0) continue;
    int count = cut.num_tiles(num_tokens), at = atomicAdd(&places[bucket_of(num_tokens)], count);
    for (int j = 0, first = 0, next; j < count; j++, first = next) {
      next = j + 1 < count ? cut.first(num_tokens, j + 1) : num_tokens;
      tiles[at + j] = {start, num_tokens, first, next - first};
    }
  }
  return total[0];
}
