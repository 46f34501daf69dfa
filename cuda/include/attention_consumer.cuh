// What a consumer warpgroup does with an item: scores = q k^T, online softmax, out += weights v.
//
// The next tile's scores are under way while this tile's softmax runs (arXiv 2407.08608, section 3), and the warpgroups take turns:
// one's products run while the others compute their softmax.
#pragma once

#include "attention_sm90.cuh"
#include "attention_softmax.cuh"

constexpr int PART = HEAD_DIM < 128 ? HEAD_DIM : 128;  // channels of one product
constexpr int NUM_PARTS = HEAD_DIM / PART;
constexpr bool TAKE_TURNS = HEAD_DIM <= 128;

using Scores = float[KEY_TOKENS / 2];
using Weights = u32[KEY_TOKENS / 16][4];
using Output = float[NUM_PARTS][PART / 2];

struct Consumer {
  int index;  // of the warpgroup among the consumers
  float squash_factor, factor;
  Ring<STAGES> stage;
};

// The warpgroup's barrier opens when the one before it has issued its products. 0 is __syncthreads'.
DEVICE void wait_for_turn(int index) {
  if (TAKE_TURNS) named_barrier_sync(1 + index, 2 * WARPGROUP);
}
DEVICE void give_turn(int index) {
  if (TAKE_TURNS) named_barrier_arrive(1 + (CONSUMERS == 2 ? index ^ 1 : (index + 1) % CONSUMERS), 2 * WARPGROUP);
}

DEVICE u64 queries_descriptor(const Shared& shared, int slot, int index) {
  return matrix_descriptor(shared.queries[slot] + index * CONSUMER_ROWS * SEGMENT_BYTES, 16, 8 * SEGMENT_BYTES);
}

DEVICE void wait_for_keys(Shared& shared, const Ring<STAGES>& stage) {
  barrier_wait(&shared.keys_full[stage.place], stage.parity);
}

DEVICE void hold_output(Output& out) {
#pragma unroll
  for (int part = 0; part < NUM_PARTS; part++) hold(out[part]);
}

// Against the tile's first 2 * kCount keys.
template <int kCount>
DEVICE void issue_scores(float (&scores)[kCount], u64 queries, const u8* tile) {
  u64 keys = matrix_descriptor(tile, 16, 8 * SEGMENT_BYTES);
  hold(scores);
  warpgroup_fence();
#pragma unroll
  for (int step = 0; step < HEAD_DIM / 16; step++) {
    int segment = step * 16 / SEGMENT, inside = step * 16 % SEGMENT * 2;
    warpgroup_mma(scores, descriptor_plus(queries, segment * QUERY_ROWS * SEGMENT_BYTES + inside),
                  descriptor_plus(keys, segment * KEY_TOKENS * SEGMENT_BYTES + inside), step > 0);
  }
  warpgroup_commit();
  hold(scores);
}

DEVICE void issue_output(Output& out, const Weights& weights, const u8* tile) {
  constexpr int kSegment = KEY_TOKENS * SEGMENT_BYTES;
  u64 values = matrix_descriptor(tile, kSegment, 8 * SEGMENT_BYTES);
  hold_output(out);
  warpgroup_fence();
#pragma unroll
  for (int step = 0; step < KEY_TOKENS / 16; step++)
#pragma unroll
    for (int part = 0; part < NUM_PARTS; part++)
      warpgroup_mma_transposed(out[part], weights[step],
                               descriptor_plus(values, step * 16 * SEGMENT_BYTES + part * (PART / SEGMENT) * kSegment));
  warpgroup_commit();
  hold_output(out);
}

DEVICE void weigh(Scores& scores, Softmax& softmax, const Consumer& consumer, const View& view, int tile, float (&correction)[2]) {
  int first_key = tile * KEY_TOKENS;
  if (SOFTCAP) squash(scores, consumer.squash_factor);
  bool all_seen = first_key + KEY_TOKENS - 1 <= view.all_last && (WINDOW == 0 || first_key >= view.all_first);
  if (!all_seen) mask(scores, view, first_key);
  add_scores(softmax, scores, consumer.factor, correction);
}

// Of the tile's first 2 * kCount keys; those of the others are zero.
template <int kCount>
DEVICE void pack_weights(Weights& weights, const float (&scores)[kCount]) {
#pragma unroll
  for (int i = 0; i < KEY_TOKENS / 4; i++) weights[i / 4][i % 4] = 2 * i < kCount ? pack(scores[2 * i], scores[2 * i + 1]) : 0;
}

DEVICE void rescale(Output& out, const float (&correction)[2]) {
#pragma unroll
  for (int part = 0; part < NUM_PARTS; part++)
#pragma unroll
    for (int i = 0; i < PART / 2; i++) out[part][i] *= correction[i / 2 % 2];
}

// out [64, HEAD_DIM] = weights v, not yet divided by softmax.total. Releases the item's query slot as soon as its last scores are there.
DEVICE void attend(Output& out, Softmax& softmax, Shared& shared, Consumer& consumer, const Item& item, const View& view, int slot) {
  Scores scores;
  Weights weights;
  float correction[2];
  Ring<STAGES>& stage = consumer.stage;
  u64 queries = queries_descriptor(shared, slot, consumer.index);
  int first = first_tile(item), tile = end_tile(item) - 1;

  wait_for_keys(shared, stage);
  issue_scores(scores, queries, shared.keys[stage.place]);
  warpgroup_wait<0>();
  hold(scores);
  release(&shared.keys_empty[stage.place]);
  weigh(scores, softmax, consumer, view, tile, correction);
  pack_weights(weights, scores);
  if (tile > first) wait_for_keys(shared, stage.after());

  for (tile--; tile >= first; tile--) {
    Ring<STAGES> before = stage;  // whose values are still to be added
    stage = stage.after();
    wait_for_turn(consumer.index);
    issue_scores(scores, queries, shared.keys[stage.place]);
    barrier_wait(&shared.values_full[before.place], before.parity);
    issue_output(out, weights, shared.values[before.place]);
    give_turn(consumer.index);
    warpgroup_wait<1>();
    hold(scores);
    release(&shared.keys_empty[stage.place]);
    weigh(scores, softmax, consumer, view, tile, correction);
    hold(scores);
    if (tile > first) wait_for_keys(shared, stage.after());  // here, as only a branch keeps the assembler from waiting before the softmax
    warpgroup_wait<0>();
    hold(scores);  // nor are they packed before the products have read the old weights
    hold_output(out);
    release(&shared.values_empty[before.place]);
    pack_weights(weights, scores);
    rescale(out, correction);
  }

  release(&shared.queries_empty[slot]);
  barrier_wait(&shared.values_full[stage.place], stage.parity);
  issue_output(out, weights, shared.values[stage.place]);
  warpgroup_wait<0>();
  hold_output(out);
  release(&shared.values_empty[stage.place]);
  stage = stage.after();
}
