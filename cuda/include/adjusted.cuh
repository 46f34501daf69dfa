// A request's own changes to single logits: bias, allowed and banned tokens, stop tokens that may not come yet, penalties.
#pragma once

#include "vocab_row.cuh"

// engine.columns.Columns, [rows] each, as parameters of a kernel. pools: addresses of history and bias, [entries][VOCAB].
#define COLUMN_PARAMETERS                                                                                                        \
  const int *num_tokens, const int *min_total, const int *top_k, const int *history_entry, const int *bias_entry,                \
      const float *temperature, const float *top_p, const float *min_p, const float *repetition_penalty,                         \
      const float *presence_penalty, const float *frequency_penalty, const u64 *seed, const int *stop_ids, const u64 *pools
#define COLUMN_ARGUMENTS                                                                                                       \
  num_tokens, min_total, top_k, history_entry, bias_entry, temperature, top_p, min_p, repetition_penalty, presence_penalty, \
      frequency_penalty, seed, stop_ids, pools

constexpr int kInPrompt = 1 << 30;
constexpr int kStopTable = 2048;

struct Columns {
  const int *num_tokens, *min_total, *top_k, *history_entry, *bias_entry;
  const float *temperature, *top_p, *min_p, *repetition_penalty, *presence_penalty, *frequency_penalty;
  const u64* seed;
  const int* stop_ids;  // [rows][MAX_STOP_IDS], -1 where there is none
  const u64* pools;
};

struct Adjustment {
  bool changes;
  const float* bias;  // [VOCAB], null where there is none
  const int* history;  // [VOCAB]: times in the output, and kInPrompt; null where no penalty is asked for
  const int* hidden_ids;  // [MAX_STOP_IDS], null where nothing is hidden
  const u8* may_be_hidden;  // shared [kStopTable]: 0 at g % kStopTable where group g has no hidden token
  float repetition, frequency, presence;

  DEVICE void operator()(int group, float (&logits)[kGroup]) const {
    if (!changes) return;
    float4 x = applied(group, make_float4(logits[0], logits[1], logits[2], logits[3]));
    logits[0] = x.x, logits[1] = x.y, logits[2] = x.z, logits[3] = x.w;
  }

  // A function of its own: few rows come here, and the others need the registers.
  __device__ __attribute__((noinline)) float4 applied(int group, float4 x) const {
    float logits[kGroup] = {x.x, x.y, x.z, x.w};
    if (bias) add_bias(group, logits);
    if (hidden_ids && may_be_hidden[group % kStopTable]) hide(group, logits);
    if (history) penalise(group, logits);
    return make_float4(logits[0], logits[1], logits[2], logits[3]);
  }

  DEVICE void add_bias(int group, float (&logits)[kGroup]) const {
    float added[kGroup];
    load_group(bias, group, 0.f, added);
#pragma unroll
    for (int i = 0; i < kGroup; i++) logits[i] = min(logits[i] + added[i], kLargest);
  }

  DEVICE void hide(int group, float (&logits)[kGroup]) const {
#pragma unroll 1
    for (int j = 0; j < MAX_STOP_IDS; j++) {
#pragma unroll
      for (int i = 0; i < kGroup; i++)
        if (hidden_ids[j] == group * kGroup + i) logits[i] = -kInfinity;
    }
  }

  DEVICE void penalise(int group, float (&logits)[kGroup]) const {
    int seen[kGroup];
    load_group(history, group, 0, seen);
    if ((seen[0] | seen[1] | seen[2] | seen[3]) == 0) return;
#pragma unroll
    for (int i = 0; i < kGroup; i++)
      if (seen[i]) logits[i] = penalised(logits[i], seen[i] & (kInPrompt - 1));
  }

  // In double every product here is exact, so that a fused multiply-add cannot change the result.
  __device__ __attribute__((noinline)) float penalised(float logit, int count) const {
    double x = logit;
    x = x > 0 ? x / repetition : x * repetition;
    if (count > 0) x = x - static_cast<double>(frequency) * count - presence;
    return static_cast<float>(min(x, static_cast<double>(kLargest)));
  }
};

DEVICE Adjustment adjustment_of(const Columns& columns, int row, const u8* may_be_hidden) {
  int history = columns.history_entry[row], bias = columns.bias_entry[row];
  Adjustment out = {};
  if (bias >= 0) out.bias = reinterpret_cast<const float*>(columns.pools[1]) + static_cast<i64>(bias) * VOCAB;
  if (history >= 0) out.history = reinterpret_cast<const int*>(columns.pools[0]) + static_cast<i64>(history) * VOCAB;
  out.repetition = columns.repetition_penalty[row];
  out.frequency = columns.frequency_penalty[row];
  out.presence = columns.presence_penalty[row];
  if (columns.num_tokens[row] < columns.min_total[row]) out.hidden_ids = columns.stop_ids + row * MAX_STOP_IDS;
  out.may_be_hidden = may_be_hidden;
  out.changes = out.bias || out.history || out.hidden_ids;
  return out;
}

// In shared memory, for all threads of a block.
DEVICE const Adjustment& share_adjustment(const Columns& columns, int row) {
  __shared__ Adjustment adjustment;
  __shared__ u8 may_be_hidden[kStopTable];
  if (threadIdx.x == 0) adjustment = adjustment_of(columns, row, may_be_hidden);
  __syncthreads();
  if (const int* hidden_ids = adjustment.hidden_ids) {
    for (int i = threadIdx.x; i < kStopTable; i += THREADS) may_be_hidden[i] = 0;
    __syncthreads();
    if (threadIdx.x < MAX_STOP_IDS && hidden_ids[threadIdx.x] >= 0)
      may_be_hidden[hidden_ids[threadIdx.x] / kGroup % kStopTable] = 1;
    __syncthreads();
  }
  return adjustment;
}
