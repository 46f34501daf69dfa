// Rotary embedding (arXiv 2104.09864, half-split form) of queries in place and of keys into the paged cache, with the values beside them;
// RMSNorm of each query and key head before it where the family has that (QK_NORM: Qwen3).
//
// qkv Element [tokens, (NUM_HEADS + 2 NUM_KV_HEADS) * HEAD_DIM], rope float [positions, HEAD_DIM] (cosines, then sines), positions and
// cache_slots int32 [tokens], keys and values as cache.cuh has them, q_norm and k_norm float [HEAD_DIM] (not read without QK_NORM).
// HEAD_DIM is a multiple of 32, at most 512.
//
// A block of THREADS takes one token. A thread has 8 channels of the first half and their 8 partners of the second, in several heads: the
// same channels in all of them, so that it reads its angles once.
#include "cache.cuh"
#include "ptx.cuh"
#include "rotate.cuh"

constexpr int kHalf = HEAD_DIM / 2;
constexpr int kActive = kHalf / LANES;  // threads that share a head
// They and some idle ones, a power of two, so that no team lies in two warps.
constexpr int kTeam = kActive <= 2 ? 2 : kActive <= 4 ? 4 : kActive <= 8 ? 8 : kActive <= 16 ? 16 : 32;
constexpr int kTeams = THREADS / kTeam;
constexpr int kHeads = NUM_HEADS + 2 * NUM_KV_HEADS;  // queries, keys, values
constexpr int kPasses = (kHeads + kTeams - 1) / kTeams;

struct Pair {
  uint4 low, high;  // 8 channels of the first half, 8 of the second
};

// Sum over the team; every lane of the warp takes part.
DEVICE float team_sum(float value) {
#pragma unroll
  for (int step = kTeam / 2; step > 0; step /= 2) value += __shfl_xor_sync(0xffffffffu, value, step);
  return value;
}

DEVICE void normalise(float (&low)[LANES], float (&high)[LANES], const float* weight, int channel, bool valid, float eps) {
  float squares = 0.f;
#pragma unroll
  for (int i = 0; i < LANES; i++) squares += low[i] * low[i] + high[i] * high[i];
  float scale = rsqrtf(team_sum(valid ? squares : 0.f) * (1.f / HEAD_DIM) + eps);
  if (!valid) return;
  float low_weight[LANES], high_weight[LANES];
  load_floats(weight + channel, low_weight);
  load_floats(weight + kHalf + channel, high_weight);
#pragma unroll
  for (int i = 0; i < LANES; i++) {
    low[i] = low[i] * scale * low_weight[i];
    high[i] = high[i] * scale * high_weight[i];
  }
}

DEVICE void store_in_cache(Pair pair, Element* cache, int kv_head, int cache_slot, int channel) {
  int block = cache_slot / BLOCK_SIZE, place = cache_slot % BLOCK_SIZE;
  Element* head = cache + (static_cast<i64>(block) * NUM_KV_HEADS + kv_head) * (BLOCK_SIZE * HEAD_DIM);
  *reinterpret_cast<uint4*>(head + cache_offset(place, channel)) = pair.low;
  *reinterpret_cast<uint4*>(head + cache_offset(place, kHalf + channel)) = pair.high;
}

extern "C" __global__ __launch_bounds__(THREADS) void rope_and_cache(Element* qkv, const float* rope, const int* positions,
                                                                     const int* cache_slots, Element* keys, Element* values,
                                                                     const float* __restrict__ q_norm, const float* __restrict__ k_norm,
                                                                     float eps) {
  let_next_kernel_begin();
  wait_for_previous_kernel();
  const int cache_slot = cache_slots[blockIdx.x], position = positions[blockIdx.x];
  if (cache_slot < 0) return;  // a pad
  const int team = static_cast<int>(threadIdx.x) / kTeam, channel = static_cast<int>(threadIdx.x) % kTeam * LANES;
  Element* token = qkv + static_cast<i64>(blockIdx.x) * (kHeads * HEAD_DIM) + channel;

  Pair pairs[kPasses];
#pragma unroll
  for (int pass = 0; pass < kPasses; pass++) {
    int head = pass * kTeams + team;
    const Element* at = token + head * HEAD_DIM;
    pairs[pass] = {make_uint4(0u, 0u, 0u, 0u), make_uint4(0u, 0u, 0u, 0u)};
    if (head < kHeads && channel < kHalf)
      pairs[pass] = {*reinterpret_cast<const uint4*>(at), *reinterpret_cast<const uint4*>(at + kHalf)};
  }
  float cosines[LANES] = {}, sines[LANES] = {};
  if (channel < kHalf) {
    const float* angles = rope + static_cast<i64>(position) * HEAD_DIM + channel;
    load_floats(angles, cosines);
    load_floats(angles + kHalf, sines);
  }

#pragma unroll
  for (int pass = 0; pass < kPasses; pass++) {
    int head = pass * kTeams + team;
    bool valid = head < kHeads && channel < kHalf;
    Pair pair = pairs[pass];
    float low[LANES], high[LANES];
    widen(pair.low, low);
    widen(pair.high, high);
#if QK_NORM
    normalise(low, high, head < NUM_HEADS ? q_norm : k_norm, channel, valid, eps);
#endif
    if (!valid) continue;
    rotate(low, high, cosines, sines);
    Pair rotated = {narrow(low), narrow(high)};
    if (head < NUM_HEADS) {
      *reinterpret_cast<uint4*>(token + head * HEAD_DIM) = rotated.low;
      *reinterpret_cast<uint4*>(token + head * HEAD_DIM + kHalf) = rotated.high;
    } else if (head < NUM_HEADS + NUM_KV_HEADS) {
      store_in_cache(rotated, keys, head - NUM_HEADS, cache_slot, channel);
    } else {
      store_in_cache(pair, values, head - NUM_HEADS - NUM_KV_HEADS, cache_slot, channel);
    }
  }
}
