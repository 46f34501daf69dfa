// One row as wide as the vocabulary, read by all threads of a block, four tokens at a time.
#pragma once

#include "ptx.cuh"

constexpr u32 kEveryLane = 0xffffffffu;
constexpr int kGroup = 4;  // tokens in 16 bytes
constexpr int kNumGroups = (VOCAB + kGroup - 1) / kGroup;
constexpr int kInFlight = 4;  // groups that a thread loads before it looks at the first
constexpr int kNumWarps = THREADS / WARP;
constexpr float kLargest = 3.402823466e38f;
#define kInfinity __uint_as_float(0x7f800000u)

// Group `group` of a row; what is past the vocabulary is `absent`. A vocabulary of whole groups has its rows at multiples of 16 bytes.
template <class T>
DEVICE void load_group(const T* row, int group, T absent, T (&out)[kGroup]) {
  if (VOCAB % kGroup == 0) {
    uint4 words = reinterpret_cast<const uint4*>(row)[group];
    const u32 bits[kGroup] = {words.x, words.y, words.z, words.w};
#pragma unroll
    for (int i = 0; i < kGroup; i++) out[i] = *reinterpret_cast<const T*>(&bits[i]);
  } else {
#pragma unroll
    for (int i = 0; i < kGroup; i++) out[i] = group * kGroup + i < VOCAB ? row[group * kGroup + i] : absent;
  }
}

// Calls visit(group, logits) for each group of [begin, end), and after() each time all threads had one. For visits that are long: another
// warp's hides the load.
template <class Visit, class After>
DEVICE void each_group(const float* row, int begin, int end, Visit visit, After after) {
#pragma unroll 1
  for (int first = begin; first < end; first += THREADS) {
    int group = first + threadIdx.x;
    float logits[kGroup];
    if (group < end) {
      load_group(row, group, -kInfinity, logits);
      visit(group, logits);
    }
    after();
  }
}

template <class Visit>
DEVICE void each_group(const float* row, int begin, int end, Visit visit) {
  each_group(row, begin, end, visit, [] {});
}

// The same for visits that are short: several groups are loaded at once.
template <class Visit>
DEVICE void each_group_ahead(const float* row, int begin, int end, Visit visit) {
  for (int first = begin + threadIdx.x; first < end; first += kInFlight * THREADS) {
    float logits[kInFlight][kGroup];
#pragma unroll
    for (int i = 0; i < kInFlight; i++)
      if (first + i * THREADS < end) load_group(row, first + i * THREADS, -kInfinity, logits[i]);
#pragma unroll
    for (int i = 0; i < kInFlight; i++)
      if (first + i * THREADS < end) visit(first + i * THREADS, logits[i]);
  }
}

// T is made of 4-byte words.
template <class T>
DEVICE T shuffle_xor(T value, int lanes) {
  union {
    T value;
    u32 words[sizeof(T) / 4];
  } both;
  both.value = value;
#pragma unroll
  for (int i = 0; i < static_cast<int>(sizeof(T) / 4); i++) both.words[i] = __shfl_xor_sync(kEveryLane, both.words[i], lanes);
  return both.value;
}

// Of the first `num_lanes` lanes, a power of two, for each of them; and so on for the next.
template <class T, class Combine>
DEVICE T warp_reduce(T value, int num_lanes, Combine combine) {
  for (int lanes = num_lanes / 2; lanes > 0; lanes /= 2) value = combine(value, shuffle_xor(value, lanes));
  return value;
}

// For all threads of the block. combine(a, b) does not mind their order.
template <class T, class Combine>
DEVICE T block_reduce(T value, Combine combine) {
  __shared__ T of_warps[kNumWarps];
  value = warp_reduce(value, WARP, combine);
  __syncthreads();  // what a reduction before this one left has been read
  if (lane_id() == 0) of_warps[warp_id()] = value;
  __syncthreads();
  return warp_reduce(of_warps[lane_id() % kNumWarps], kNumWarps, combine);
}

// True in the block of a row that gets here when the row's other blocks have; it sees what they wrote. Leaves *arrived at 0.
DEVICE bool comes_last(int* arrived) {
  __shared__ int is_last;
  if (gridDim.y == 1) {
    __syncthreads();
    return true;
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    __threadfence();
    is_last = atomicAdd(arrived, 1) == static_cast<int>(gridDim.y) - 1;
    if (is_last) *arrived = 0;
    __threadfence();
  }
  __syncthreads();
  return is_last;
}
