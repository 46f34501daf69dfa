// Parts of a pair to one part, or to the pair's result, always in the order of its tiles.
#pragma once

#include "decode_pair.cuh"

constexpr int kQuads = kGroup * HEAD_DIM / 4;  // four channels each
constexpr int kShared = 2, kInDevice = 8;      // parts that are read at once from either memory

// Threads that put a pair together.
struct Team {
  int thread, num_threads;
};

// Four channels of one query over all parts, with the maximum and the sum of its weights. kAtOnce parts are on their way together: many
// from device memory, few from shared memory, where a pair's parts are few and instructions are what they cost.
template <int kAtOnce>
struct Merged {
  float4 out;
  float max, sum;

  DEVICE Merged(const float* partials, const Parts& parts, int quad) : out(make_float4(0, 0, 0, 0)), max(kLowest), sum(0) {
    const float* row = partials + quad / (HEAD_DIM / 4) * kPartRow;
    int channel = quad % (HEAD_DIM / 4) * 4;
#pragma unroll 1
    for (int first = 0; first < parts.count; first += kAtOnce) add(row, channel, parts, first);
  }

 private:
  DEVICE void add(const float* row, int channel, const Parts& parts, int first) {
    float4 values[kAtOnce];
    float2 weights[kAtOnce];  // their maximum and sum
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      values[i] = make_float4(0, 0, 0, 0), weights[i] = make_float2(kLowest, 0);
      if (first + i >= parts.count) continue;
      const float* part = row + static_cast<i64>(parts[first + i]) * kPartFloats;
      values[i] = *reinterpret_cast<const float4*>(part + channel);
      weights[i] = *reinterpret_cast<const float2*>(part + HEAD_DIM);
    }
    float top = max;
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) top = fmaxf(top, weights[i].x);
    float factor = exp2_fast(max - top);
    max = top, sum *= factor;
    out.x *= factor, out.y *= factor, out.z *= factor, out.w *= factor;
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      float weight = exp2_fast(weights[i].x - top);
      sum = fmaf(weight, weights[i].y, sum);
      out.x = fmaf(weight, values[i].x, out.x), out.y = fmaf(weight, values[i].y, out.y);
      out.z = fmaf(weight, values[i].z, out.z), out.w = fmaf(weight, values[i].w, out.w);
    }
  }
};

// The parts in `partials` to the pair's result.
template <int kAtOnce>
DEVICE void merge_to_result(Element* result, const Tile& pair, const float* partials, const Parts& parts, const Team& team) {
  Element* rows = result + (static_cast<i64>(pair.token) * NUM_HEADS + pair.head * kGroup) * HEAD_DIM;
  for (int quad = team.thread; quad < kQuads; quad += team.num_threads) {
    Merged<kAtOnce> merged(partials, parts, quad);
    float factor = 1 / merged.sum;
    uint2 words = make_uint2(pack(merged.out.x * factor, merged.out.y * factor), pack(merged.out.z * factor, merged.out.w * factor));
    *reinterpret_cast<uint2*>(rows + quad * 4) = words;
  }
}

// The parts in `partials`, in shared memory, to one part.
DEVICE void merge_to_part(float* target, const float* partials, const Parts& parts, const Team& team) {
  for (int quad = team.thread; quad < kQuads; quad += team.num_threads) {
    Merged<kShared> merged(partials, parts, quad);
    int channel = quad % (HEAD_DIM / 4) * 4;
    float* row = target + quad / (HEAD_DIM / 4) * kPartRow;
    *reinterpret_cast<float4*>(row + channel) = merged.out;
    if (channel == 0) row[HEAD_DIM] = merged.max, row[HEAD_DIM + 1] = merged.sum;
  }
}
