// Parts of a pair to one part, or to the pair's result, always in the order of its tiles.
#pragma once

#include "decode_pair.cuh"

constexpr int kQuads = kGroup * HEAD_DIM / 4;  // four channels each

// Four channels of one query over all parts, with the maximum and the sum of its weights.
struct Merged {
  float4 out;
  float max, sum;

  DEVICE Merged(const float* partials, const Parts& parts, int quad) : out(make_float4(0, 0, 0, 0)), max(kLowest), sum(0) {
    const float* row = partials + quad / (HEAD_DIM / 4) * kPartRow;
    int channel = quad % (HEAD_DIM / 4) * 4;
#pragma unroll 8
    for (int i = 0; i < parts.count; ++i) max = fmaxf(max, row[static_cast<i64>(parts[i]) * kPartFloats + HEAD_DIM]);
#pragma unroll 8
    for (int i = 0; i < parts.count; ++i) {
      const float* part = row + static_cast<i64>(parts[i]) * kPartFloats;
      float4 values = *reinterpret_cast<const float4*>(part + channel);
      float weight = exp2_fast(part[HEAD_DIM] - max);
      sum = fmaf(weight, part[HEAD_DIM + 1], sum);
      out.x = fmaf(weight, values.x, out.x), out.y = fmaf(weight, values.y, out.y);
      out.z = fmaf(weight, values.z, out.z), out.w = fmaf(weight, values.w, out.w);
    }
  }
};

// Threads `thread` of `num_threads`: the parts in `partials` to the pair's result.
DEVICE void merge_to_result(
    Element* result, const Tile& pair, const float* partials, const Parts& parts, int thread, int num_threads) {
  Element* rows = result + (static_cast<i64>(pair.token) * NUM_HEADS + pair.head * kGroup) * HEAD_DIM;
  for (int quad = thread; quad < kQuads; quad += num_threads) {
    Merged merged(partials, parts, quad);
    float factor = 1 / merged.sum;
    uint2 words = make_uint2(pack(merged.out.x * factor, merged.out.y * factor), pack(merged.out.z * factor, merged.out.w * factor));
    *reinterpret_cast<uint2*>(rows + quad * 4) = words;
  }
}

// All lanes of a warp: the parts in `partials` to one part.
DEVICE void merge_to_part(float* target, const float* partials, const Parts& parts) {
  for (int quad = lane_id(); quad < kQuads; quad += WARP) {
    Merged merged(partials, parts, quad);
    int channel = quad % (HEAD_DIM / 4) * 4;
    float* row = target + quad / (HEAD_DIM / 4) * kPartRow;
    *reinterpret_cast<float4*>(row + channel) = merged.out;
    if (channel == 0) row[HEAD_DIM] = merged.max, row[HEAD_DIM + 1] = merged.sum;
  }
}
