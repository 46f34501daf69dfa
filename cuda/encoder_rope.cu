// Rotary embedding of queries and keys in place, where nothing is cached.
//
// qkv Element [num_tokens, 3 * NUM_HEADS * HEAD_DIM], rope float [positions, HEAD_DIM] (cosines, then sines), positions int32
// [num_tokens]; HEAD_DIM is a multiple of 16. A thread has the same 8 channels and their partners in kThreadHeads heads of a token: it
// reads their angles once.
#include "lanes.cuh"
#include "ptx.cuh"
#include "rotate.cuh"

constexpr int kHalf = HEAD_DIM / 2;
constexpr int kHeads = 2 * NUM_HEADS;
constexpr int kThreadHeads = 4;
constexpr int kTeam = kHalf / LANES;  // threads that share a head
constexpr int kTeams = (kHeads + kThreadHeads - 1) / kThreadHeads;

extern "C" __global__ __launch_bounds__(THREADS) void encoder_rope(Element* qkv, const float* rope, const int* positions, int num_tokens) {
  let_next_kernel_begin();
  wait_for_previous_kernel();
  const int place = static_cast<int>(blockIdx.x) * THREADS + static_cast<int>(threadIdx.x);
  const int channel = place % kTeam * LANES, first_head = place / kTeam % kTeams * kThreadHeads, token = place / (kTeam * kTeams);
  if (token >= num_tokens) return;
  Element* at = qkv + static_cast<i64>(token) * (3 * NUM_HEADS * HEAD_DIM) + first_head * HEAD_DIM + channel;

  float low[kThreadHeads][LANES], high[kThreadHeads][LANES], cosines[LANES], sines[LANES];
#pragma unroll
  for (int head = 0; head < kThreadHeads; head++) {
    if (first_head + head >= kHeads) continue;
    load_lanes(at + head * HEAD_DIM, low[head]);
    load_lanes(at + head * HEAD_DIM + kHalf, high[head]);
  }
  const float* angles = rope + static_cast<i64>(positions[token]) * HEAD_DIM + channel;
  load_floats(angles, cosines);
  load_floats(angles + kHalf, sines);
#pragma unroll
  for (int head = 0; head < kThreadHeads; head++) {
    if (first_head + head >= kHeads) continue;
    rotate(low[head], high[head], cosines, sines);
    store_lanes(low[head], at + head * HEAD_DIM);
    store_lanes(high[head], at + head * HEAD_DIM + kHalf);
  }
}
