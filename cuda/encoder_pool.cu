// One vector an input of its tokens' vectors, by offsets. A block takes kWidth channels of one input, its teams every kTeams-th token.
//
// x [tokens, HIDDEN], float if X_FLOAT, else Element; starts int32 [inputs + 1]; out float [inputs, HIDDEN], zeros for an input without
// tokens. HIDDEN is a multiple of 8. KIND: what is made of the tokens.
#include "lanes.cuh"
#include "ptx.cuh"

enum { kFirst, kLast, kMean, kMax, kMeanSqrt, kWeightedMean };

#if X_FLOAT
using Stream = float;
#else
using Stream = Element;
#endif

constexpr int kWidth = 64;
constexpr int kTeam = kWidth / LANES;  // threads that read one token
constexpr int kTeams = THREADS / kTeam;
static_assert(THREADS >= kWidth, "a thread a channel adds up the teams");

DEVICE float nothing() { return KIND == kMax ? -__int_as_float(0x7f800000) : 0.f; }

// NaN wins.
DEVICE float join(float a, float b) { return KIND != kMax ? a + b : a > b || a != a ? a : b; }

// What the sum of num_tokens vectors is multiplied with.
DEVICE float factor(float num_tokens) {
  if (KIND == kMean) return 1.f / num_tokens;
  if (KIND == kMeanSqrt) return rsqrtf(num_tokens);
  if (KIND == kWeightedMean) return 2.f / (num_tokens * (num_tokens + 1.f));
  return 1.f;
}

extern "C" __global__ __launch_bounds__(THREADS, 4) void pool(const Stream* __restrict__ x, const int* __restrict__ starts, float* out) {
  __shared__ float found[kTeams][kWidth];
  let_next_kernel_begin();
  wait_for_previous_kernel();
  const int start = starts[blockIdx.x], end = starts[blockIdx.x + 1], first_channel = static_cast<int>(blockIdx.y) * kWidth;
  const int team = static_cast<int>(threadIdx.x) / kTeam, place = static_cast<int>(threadIdx.x) % kTeam * LANES;
  const int begin = KIND == kLast ? max(end - 1, start) : start, stop = KIND == kFirst ? min(start + 1, end) : end;

  float own[LANES];
#pragma unroll
  for (int lane = 0; lane < LANES; lane++) own[lane] = nothing();
  if (first_channel + place < HIDDEN) {
#pragma unroll 4
    for (int token = begin + team; token < stop; token += kTeams) {
      float values[LANES], weight = KIND == kWeightedMean ? token - start + 1 : 1.f;
      load_lanes(x + static_cast<i64>(token) * HIDDEN + first_channel + place, values);
#pragma unroll
      for (int lane = 0; lane < LANES; lane++) own[lane] = join(own[lane], values[lane] * weight);
    }
  }
#pragma unroll
  for (int lane = 0; lane < LANES; lane++) found[team][place + lane] = own[lane];
  __syncthreads();

  const int channel = first_channel + static_cast<int>(threadIdx.x);
  if (threadIdx.x >= kWidth || channel >= HIDDEN) return;
  float total = nothing();
#pragma unroll
  for (int other = 0; other < kTeams; other++) total = join(total, found[other][threadIdx.x]);
  out[static_cast<i64>(blockIdx.x) * HIDDEN + channel] = start < end ? total * factor(end - start) : 0.f;
}
