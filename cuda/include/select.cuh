// Exact selection by weight among logits, without sorting them: a radix search over their ordered bits. For all threads of a block.
#pragma once

#include "vocab_row.cuh"

constexpr int kRadixBins = 256;
constexpr u32 kLastKey = 0xffffffffu;

// Orders floats downwards: the larger the logit, the smaller its key. The two zeros are one.
DEVICE u32 key_of(float logit) {
  u32 bits = __float_as_uint(logit + 0.f);
  return bits >> 31 ? bits : ~bits & 0x7fffffffu;
}

DEVICE float logit_of(u32 key) { return __uint_as_float(key >> 31 ? key : ~key & 0x7fffffffu); }

// Sums of whole numbers, so that the order they are added in does not matter. In shared memory, which adds 32 bits at a time only.
template <int kBins>
struct Histogram {
  u32 low[kBins], high[kBins];
  u64 of_slices[kNumWarps];

  DEVICE void clear() {
    for (int i = threadIdx.x; i < kBins; i += THREADS) low[i] = 0, high[i] = 0;
    __syncthreads();
  }

  DEVICE void add(int bin, u64 weight) {
    u32 below = static_cast<u32>(weight), above = static_cast<u32>(weight >> 32);
    if (below) above += atomicAdd(&low[bin], below) + below < below;
    if (above) atomicAdd(&high[bin], above);
  }

  DEVICE u64 at(int bin) const { return static_cast<u64>(high[bin]) << 32 | low[bin]; }
};

struct Crossing {
  int bin;  // where the target is reached; the number of bins if it is not
  u64 before;  // the weight of the bins before
};

// The weight of all bins, and of each warp's slice of them. After everything was added.
template <int kBins>
DEVICE u64 sum_slices(Histogram<kBins>& bins) {
  constexpr int kSlice = kBins / kNumWarps;
  __syncthreads();
  u64 sum = 0;
  for (int i = lane_id(); i < kSlice; i += WARP) sum += bins.at(warp_id() * kSlice + i);
  sum = warp_reduce(sum, WARP, [](u64 a, u64 b) { return a + b; });
  if (lane_id() == 0) bins.of_slices[warp_id()] = sum;
  __syncthreads();
  u64 total = 0;
  for (int i = 0; i < kNumWarps; i++) total += bins.of_slices[i];
  return total;
}

// The first bin that brings the sum to `target`. After sum_slices.
template <int kBins>
DEVICE Crossing find_crossing(const Histogram<kBins>& bins, u64 target) {
  constexpr int kSlice = kBins / kNumWarps, kOwn = (kSlice + WARP - 1) / WARP;
  u64 before = 0;
  int slice = 0;
  while (slice < kNumWarps && before + bins.of_slices[slice] < target) before += bins.of_slices[slice++];
  if (slice == kNumWarps) return {kBins, before};
  int first = lane_id() * kOwn;  // of the slice
  u64 own[kOwn], sum = 0;
#pragma unroll
  for (int i = 0; i < kOwn; i++) sum += own[i] = first + i < kSlice ? bins.at(slice * kSlice + first + i) : 0;
  u64 through = sum;
#pragma unroll
  for (int lanes = 1; lanes < WARP; lanes *= 2) {
    u64 below = __shfl_up_sync(kEveryLane, through, lanes);
    if (lane_id() >= lanes) through += below;
  }
  int winner = __ffs(__ballot_sync(kEveryLane, before + through >= target)) - 1;
  before += through - sum;
  int passed = 0;
#pragma unroll
  for (int i = 0; i < kOwn; i++) {
    if (passed == i && before + own[i] < target) before += own[i], passed++;
  }
  int bin = slice * kSlice + first + passed;
  return {__shfl_sync(kEveryLane, bin, winner), __shfl_sync(kEveryLane, before, winner)};
}

struct KeySpan {
  u32 low, high;
};

DEVICE KeySpan join(KeySpan a, KeySpan b) { return {min(a.low, b.low), max(a.high, b.high)}; }

// The smallest key such that the entries up to it weigh `target` together; the span's highest if all weigh less.
// source(visit) calls visit(key, weight) for this thread's share of the entries, all of whose keys are in the span.
template <class Source>
DEVICE u32 reach(const Source& source, KeySpan span, u64 target) {
  __shared__ Histogram<kRadixBins> bins;
  while (span.low < span.high) {
    int shift = max(0, 24 - __clz(span.high - span.low));  // 8 bits of what the keys differ in
    __syncthreads();  // the bins of the round before have been read
    bins.clear();
    source([&](u32 key, u64 weight) {
      if (key >= span.low && key <= span.high) bins.add((key - span.low) >> shift, weight);
    });
    sum_slices(bins);
    Crossing crossing = find_crossing(bins, target);
    if (crossing.bin == kRadixBins) return span.high;
    target -= crossing.before;
    span.low += static_cast<u32>(crossing.bin) << shift;
    span.high = span.low + min(span.high - span.low, (1u << shift) - 1);
  }
  return span.low;
}
