// Softmax over scores that come tile by tile (online softmax, arXiv 1805.02867), in the fragments of wgmma.cuh.
//
// A thread has parts of two query rows, `half` 0 and 1, and its three neighbours in the quad have the rest.
#pragma once

#include "ptx.cuh"

DEVICE float masked() { return __uint_as_float(0xff800000u); }  // -inf

// The keys that a thread's two query rows see, first to last; and those that all rows of its warpgroup see.
struct View {
  int first[2], last[2];
  int all_first, all_last;
};

struct Softmax {
  float most[2] = {masked(), masked()};  // greatest score so far, of the whole row
  float total[2] = {0, 0};           // weights so far, of this thread's part
};

DEVICE float quad_max(float x) {
  x = fmaxf(x, __shfl_xor_sync(~0u, x, 1));
  return fmaxf(x, __shfl_xor_sync(~0u, x, 2));
}
DEVICE float quad_sum(float x) {
  x += __shfl_xor_sync(~0u, x, 1);
  return x + __shfl_xor_sync(~0u, x, 2);
}

// scores -> tanh(scores * factor / (2 log2 e)): 1 - 2 / (e^2x + 1), which is right at both infinities.
template <int kCount>
DEVICE void squash(float (&scores)[kCount], float factor) {
#pragma unroll
  for (int i = 0; i < kCount; i++) scores[i] = 1.f - __fdividef(2.f, exp2_fast(fminf(scores[i] * factor, 126.f)) + 1.f);
}

// Takes out what a row does not see; first_key is that of the tile's column 0.
template <int kCount>
DEVICE void mask(float (&scores)[kCount], const View& view, int first_key) {
  int column = first_key + lane_id() % 4 * 2;
#pragma unroll
  for (int half = 0; half < 2; half++) {
    int first = view.first[half] - column, last = view.last[half] - column;
#pragma unroll
    for (int i = 0; i < kCount / 2; i++) {
      int at = i / 2 * 4 + half * 2 + i % 2, key = i / 2 * 8 + i % 2;
      bool seen = key <= last && (WINDOW == 0 || key >= first);
      scores[at] = seen ? scores[at] : masked();
    }
  }
}

// scores -> weights 2^(factor (score - greatest)); what was summed before is to be multiplied by `correction`.
template <int kCount>
DEVICE void add_scores(Softmax& softmax, float (&scores)[kCount], float factor, float (&correction)[2]) {
#pragma unroll
  for (int half = 0; half < 2; half++) {
    float most = softmax.most[half];
#pragma unroll
    for (int i = half * 2; i < kCount; i += 4) most = fmaxf(most, fmaxf(scores[i], scores[i + 1]));
    most = quad_max(most);
    float base = most == masked() ? 0.f : most * factor;  // a row that has seen nothing yet: all weights are 2^-inf
    correction[half] = exp2_fast(fmaf(softmax.most[half], factor, -base));
    softmax.most[half] = most;
    float sum = 0.f;
#pragma unroll
    for (int i = half * 2; i < kCount; i += 4) {
      scores[i] = exp2_fast(fmaf(scores[i], factor, -base));
      scores[i + 1] = exp2_fast(fmaf(scores[i + 1], factor, -base));
      sum += scores[i] + scores[i + 1];
    }
    softmax.total[half] = fmaf(softmax.total[half], correction[half], sum);
  }
}
