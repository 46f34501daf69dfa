// From scores to weights: online softmax in base 2 on mma.m16n8k16's accumulators.
#pragma once

#include "attention_mma_tile.cuh"

// 1 - 2 / (1 + e^2x): as exact as the softmax needs, absolute error 1e-7.
DEVICE float tanh_fast(float x) { return 1 - __fdividef(2.f, 1 + exp2_fast(2 * kLog2E * x)); }

// cap: softcap; scale: of the raw scores before it.
DEVICE void cap_scores(Scores& scores, float scale, float cap) {
  float inner = __fdividef(scale, cap);
#pragma unroll
  for (int i = 0; i < kAtoms * kScoreTiles * 4; ++i) {
    float& score = scores[i / (4 * kScoreTiles)][i / 4 % kScoreTiles][i % 4];
    score = cap * tanh_fast(score * inner);
  }
}

// The highest of each row's scores of this tile, scaled.
DEVICE void find_tops(float (&tops)[kAtoms][2], const Scores& scores, float scale) {
#pragma unroll
  for (int i = 0; i < 2 * kAtoms; ++i) {
    float top = never();
#pragma unroll
    for (int n = 0; n < kScoreTiles; ++n) top = max(top, max(scores[i / 2][n][i % 2 * 2], scores[i / 2][n][i % 2 * 2 + 1]));
    top = max(top, __shfl_xor_sync(~0u, top, 1));
    tops[i / 2][i % 2] = scale * max(top, __shfl_xor_sync(~0u, top, 2));
  }
}

// Bases rise where weights would grow too large, which after the first tile is seldom. 2^kSlack is far from what 16 bits can hold.
DEVICE void raise_bases(AttentionRows& rows, const float (&tops)[kAtoms][2]) {
  constexpr float kSlack = 8;
  bool low = false;
#pragma unroll
  for (int i = 0; i < 2 * kAtoms; ++i) low = low || tops[i / 2][i % 2] > rows.base[i / 2][i % 2] + kSlack;
  if (!__any_sync(~0u, low)) return;
#pragma unroll
  for (int i = 0; i < 2 * kAtoms; ++i) {
    float &base = rows.base[i / 2][i % 2], old = base;
    base = max(base, tops[i / 2][i % 2]);
    float factor = old == never() ? 0 : exp2_fast(old - base);
    rows.sum[i / 2][i % 2] *= factor;
#pragma unroll
    for (int j = 0; j < kOutTiles * 2; ++j) rows.out[i / 2][j / 2][i % 2 * 2 + j % 2] *= factor;
  }
}

// Scores to weights, and their sums.
DEVICE void soften(Scores& scores, AttentionRows& rows, float scale) {
  float tops[kAtoms][2];
  find_tops(tops, scores, scale);
  raise_bases(rows, tops);
#pragma unroll
  for (int i = 0; i < 2 * kAtoms; ++i) {
    float base = rows.base[i / 2][i % 2];
    if (base == never()) base = 0;  // the row has seen no key yet
#pragma unroll
    for (int j = 0; j < kScoreTiles * 2; ++j) {
      float& score = scores[i / 2][j / 2][i % 2 * 2 + j % 2];
      score = exp2_fast(fmaf(score, scale, -base));
      rows.sum[i / 2][i % 2] += score;
    }
  }
}
