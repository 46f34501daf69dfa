// What consumers do with items of packed inputs: a warpgroup takes a unit of CONSUMER_ROWS rows. An item of fewer units than there are
// consumers leaves some of them free for the next one.
//
// What a row gets depends on its input and its place there, not on the item: tiles of keys begin at the same places for all, and a row's
// base rises for itself alone.
#pragma once

#include "attention_consumer.cuh"

constexpr float SLACK = 8.f;  // a weight may reach 2^SLACK before its row's base rises: far from what 16 bits can hold

// Rows of an item that one warpgroup has, and the tiles of keys that they see.
struct Unit {
  int first_row;
  int first, end;  // tiles
};

DEVICE int position(const Item& item, int row) { return item.first_position + min(row, item.num_tokens - 1); }

DEVICE int end_seen(const Item& item, int position) {
  return WINDOW == 0 ? item.end_key : min(item.end_key, position + WINDOW / 2 + 1);
}

DEVICE Unit make_unit(const Item& item, int index) {
  Unit unit;
  unit.first_row = index * CONSUMER_ROWS;
  unit.first = WINDOW == 0 ? 0 : max(0, position(item, unit.first_row) - WINDOW / 2) / KEY_TOKENS;
  unit.end = ceil_div(end_seen(item, position(item, unit.first_row + CONSUMER_ROWS - 1)), KEY_TOKENS);
  return unit;
}

// row: of the thread's half 0.
DEVICE View make_view(const Item& item, const Unit& unit, int row) {
  View view;
#pragma unroll
  for (int half = 0; half < 2; half++) {
    view.first[half] = position(item, row + 8 * half) - WINDOW / 2;
    view.last[half] = end_seen(item, position(item, row + 8 * half)) - 1;
  }
  view.all_first = position(item, unit.first_row + CONSUMER_ROWS - 1) - WINDOW / 2;
  view.all_last = end_seen(item, position(item, unit.first_row)) - 1;
  return view;
}

// Each row whose greatest score of this tile, `tops` of this thread's part of it, is far above its base gets that for its base.
DEVICE void raise_bases(Softmax& softmax, const float (&tops)[2], float factor, float (&correction)[2]) {
#pragma unroll
  for (int half = 0; half < 2; half++) {
    float top = quad_max(tops[half]), most = softmax.most[half];
    bool rises = top * factor > fmaf(most, factor, SLACK);
    correction[half] = rises ? exp2_fast((most - top) * factor) : 1.f;
    softmax.most[half] = rises ? top : most;
  }
}

// As add_scores, but that a row's base (softmax.most) stays where it is as long as no weight is too great. Whether it rose for a row of
// this warp; only then there are corrections.
template <int kCount>
DEVICE bool add_scores_lazily(Softmax& softmax, float (&scores)[kCount], float factor, float (&correction)[2]) {
  float tops[2];
  bool high = false;
#pragma unroll
  for (int half = 0; half < 2; half++) {
    float even = masked(), odd = masked();
#pragma unroll
    for (int i = half * 2; i < kCount; i += 4) even = fmaxf(even, scores[i]), odd = fmaxf(odd, scores[i + 1]);
    tops[half] = fmaxf(even, odd);
    high = high || tops[half] * factor > fmaf(softmax.most[half], factor, SLACK);
  }
  bool rose = __any_sync(~0u, high);
  if (rose) {
    raise_bases(softmax, tops, factor, correction);
#pragma unroll
    for (int half = 0; half < 2; half++) softmax.total[half] *= correction[half];
  }
#pragma unroll
  for (int half = 0; half < 2; half++) {
    float base = softmax.most[half] == masked() ? 0.f : softmax.most[half] * factor;  // a row may have seen nothing yet
    float sums[2] = {softmax.total[half], 0.f};
#pragma unroll
    for (int i = half * 2; i < kCount; i += 4) {
#pragma unroll
      for (int j = 0; j < 2; j++) {
        scores[i + j] = exp2_fast(fmaf(scores[i + j], factor, -base));
        sums[j] += scores[i + j];
      }
    }
    softmax.total[half] = sums[0] + sums[1];
  }
  return rose;
}

// Scores of a tile's first 2 * kCount keys become weights; whether the base of any row rose.
template <int kCount>
DEVICE bool weigh_lazily(float (&scores)[kCount], Softmax& softmax, const View& view, int tile, float factor, float (&correction)[2]) {
  int first_key = tile * KEY_TOKENS;
  bool all_seen = first_key + 2 * kCount - 1 <= view.all_last && (WINDOW == 0 || first_key >= view.all_first);
  if (!all_seen) mask(scores, view, first_key);
  return add_scores_lazily(softmax, scores, factor, correction);
}

// Weights of the tile that comes first, of which only kKeys can be seen.
template <int kKeys>
DEVICE void weigh_first(Weights& weights, Softmax& softmax, Shared& shared, const Consumer& consumer, const View& view, u64 queries,
                        int tile) {
  float scores[kKeys / 2], correction[2];
  issue_scores(scores, queries, shared.keys[consumer.stage.place]);
  warpgroup_wait<0>();
  hold(scores);
  release(&shared.keys_empty[consumer.stage.place]);
  weigh_lazily(scores, softmax, view, tile, consumer.factor, correction);
  pack_weights(weights, scores);
}

// out [64, HEAD_DIM] = weights v, not yet divided by softmax.total; from the unit's last tile of keys to its first. Releases the item's
// queries as soon as the last scores are there.
DEVICE void attend_unit(Output& out, Softmax& softmax, Shared& shared, Consumer& consumer, const Unit& unit, const View& view, int slot) {
  Scores scores;
  Weights weights;
  float correction[2];
  Ring<STAGES>& stage = consumer.stage;
  u64 queries = matrix_descriptor(shared.queries[slot] + unit.first_row * SEGMENT_BYTES, 16, 8 * SEGMENT_BYTES);
  int tile = unit.end - 1;

  wait_for_keys(shared, stage);
  if (view.all_last < tile * KEY_TOKENS + KEY_TOKENS / 2 && WINDOW == 0)
    weigh_first<KEY_TOKENS / 2>(weights, softmax, shared, consumer, view, queries, tile);
  else
    weigh_first<KEY_TOKENS>(weights, softmax, shared, consumer, view, queries, tile);
  if (tile > unit.first) wait_for_keys(shared, stage.after());

  for (tile--; tile >= unit.first; tile--) {
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
    bool rose = weigh_lazily(scores, softmax, view, tile, consumer.factor, correction);
    hold(scores);
    // Here, as only a branch keeps the assembler from waiting for the products before the softmax.
    if (tile > unit.first) wait_for_keys(shared, stage.after());
    warpgroup_wait<0>();
    hold(scores);  // nor are they packed before the products have read the old weights
    hold_output(out);
    release(&shared.values_empty[before.place]);
    pack_weights(weights, scores);
    if (rose) rescale(out, correction);
  }

  release(&shared.queries_empty[slot]);
  barrier_wait(&shared.values_full[stage.place], stage.parity);
  issue_output(out, weights, shared.values[stage.place]);
  warpgroup_wait<0>();
  hold_output(out);
  release(&shared.values_empty[stage.place]);
  stage = stage.after();
}

// Tiles that this warpgroup does not look at, the first num_turns of which have a turn.
DEVICE void pass_tiles(Shared& shared, Consumer& consumer, int num_tiles, int num_turns) {
  Ring<STAGES>& stage = consumer.stage;
#pragma unroll 1
  for (int i = 0; i < num_tiles; i++, stage = stage.after()) {
    if (i < num_turns) {
      wait_for_turn(consumer.index);
      give_turn(consumer.index);
    }
    wait_for_keys(shared, stage);
    barrier_wait(&shared.values_full[stage.place], stage.parity);
    __syncwarp();
    release(&shared.keys_empty[stage.place]);
    release(&shared.values_empty[stage.place]);
  }
}
