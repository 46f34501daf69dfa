// What cuda/skinny_wide.cu wants of a residual stream that it is to norm: weighted Element [tokens, HIDDEN] = x * norm, and the squares of x
// float32 [HIDDEN / 16, TOKENS], each of 16 channels. x float32 [tokens, HIDDEN]; HIDDEN: a multiple of 16.
//
// 16 threads a token and 16 channels.
#include "ptx.cuh"

constexpr int kThreads = 256, kChannels = 16;
constexpr int kPerToken = HIDDEN / kChannels;

extern "C" __global__ void __launch_bounds__(kThreads)
    skinny_input(const float* x, const float* norm, Element* weighted, float* squares, int num_tokens) {
  wait_for_previous_kernel();
  let_next_kernel_begin();
  int part = (blockIdx.x * kThreads + threadIdx.x) / kChannels, own = threadIdx.x % kChannels;
  int token = part / kPerToken, tile = part % kPerToken, channel = tile * kChannels + own;
  bool valid = token < num_tokens;
  i64 place = (i64)token * HIDDEN + channel;
  float value = valid ? x[place] : 0.0f, square = value * value;
#pragma unroll
  for (int other = kChannels / 2; other > 0; other /= 2) square += __shfl_xor_sync(0xffffffffu, square, other);
  if (!valid) return;
  weighted[place] = from_float(value * norm[channel]);
  if (own == 0) squares[tile * TOKENS + token] = square;
}
