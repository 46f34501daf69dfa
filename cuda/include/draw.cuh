// How one row's token is drawn: what min-p, top-k and top-p leave, and the race between what they leave.
#pragma once

#include "adjusted.cuh"
#include "listing.cuh"
#include "random.cuh"
#include "select.cuh"

constexpr float kTooLate = 26.0625f;  // a token this far below the largest loses whatever its and the largest's words are
constexpr float kWeightless = 24.265f;  // and from here on it weighs 0
constexpr double kWeightOne = 0x1p35;
constexpr int kNumBins = 2048;  // of distances

// What is done to a row after its largest logit is known.
constexpr int kSettled = 0;  // nothing: it has its token
constexpr int kRace = 1;  // all tokens near enough race
constexpr int kList = 2;  // a superset of the top k is listed, and the list settled
constexpr int kWeigh = 3;  // weights by distance say which tokens race, and which are listed: those where top-p is reached
constexpr int kAlone = 4;  // one block searches the whole row

// Each token that is kept arrives after a time, exponential with its probability as the rate; the first to arrive is drawn.
struct Arrival {
  double time;
  i64 token;
};

// One whose time is known within kTimeError.
struct Contender {
  float time;
  float distance;
  int token;
};

#ifndef TIME_BITS
#define TIME_BITS 15
#endif
constexpr float kTimeError = 1.f / (1 << TIME_BITS);
constexpr float kSurely = 1 - 3 * kTimeError, kPerhaps = 1 + 3 * kTimeError;  // how far apart two times are told from each other

DEVICE float time_of(u32 word, float distance) { return exponential(word) * exp2_fast(distance * 1.44269504f); }

// A bound that is cheap, and near where it matters: -ln(u) is at least 1 - u.
DEVICE float earliest_time_of(u32 word, float distance) {
  return (static_cast<float>(~word) + 0.5f) * exp2_fast(fmaf(distance, 1.44269504f, -32.f));
}

// Called for few tokens, and long.
__device__ __attribute__((noinline)) double exact_time(u32 word, float distance) {
  return -log((static_cast<double>(word) + 0.5) * 0x1p-32) * exp(static_cast<double>(distance));
}

// Of equals the lowest token.
DEVICE Arrival first(Arrival a, Arrival b) { return a.time < b.time || (a.time == b.time && a.token < b.token) ? a : b; }

struct Draw {
  int kind;
  float top;  // the largest logit
  float inv_temperature;
  float least;  // no logit below it is kept,
  float furthest;  // and none at a greater distance
  float places_a_unit;  // of distance
  float races_below;  // tokens whose place is below it race,
  float listed_below;  // other tokens whose place is below this are listed
  int rank;  // top-k, 0 where it cannot cut
  float top_p;
  u64 target;  // of the weight of the listed: what top-p needs of them; 0 where it counts from all that is kept
  u64 seed;
  int position;  // of the token in its request
  int unused;

  DEVICE float distance(float logit) const { return (top - logit) * inv_temperature; }
  DEVICE bool keeps(float logit) const { return logit >= least && distance(logit) <= furthest; }
  DEVICE float place(float logit) const { return keeps(logit) ? distance(logit) * places_a_unit : kInfinity; }

  DEVICE Arrival arrival_of(int token, float distance) const {
    return {exact_time(token_word(token, position, seed), distance), token};
  }

  // Of equals the lowest token does.
  DEVICE bool comes_before(Contender a, Contender b) const {
    if (a.time < b.time * kSurely) return true;
    if (a.time > b.time * kPerhaps) return false;
    double time_a = 0, time_b = 0;
#pragma unroll 1
    for (int i = 0; i < 2; i++) {
      time_b = time_a;
      time_a = arrival_of(i ? a.token : b.token, i ? a.distance : b.distance).time;
    }
    return time_a < time_b || (time_a == time_b && a.token < b.token);
  }
};

// A probability as a whole multiple of the largest's 2^-35.
DEVICE u64 weight_of(float distance) { return static_cast<u64>(exp(-static_cast<double>(distance)) * kWeightOne); }

DEVICE u64 top_p_target(u64 total, float top_p) {
  double exact = static_cast<double>(total) * top_p;
  u64 whole = static_cast<u64>(exact);
  return max(static_cast<u64>(1), whole + (static_cast<double>(whole) < exact));
}

DEVICE Draw make_draw(const Columns& columns, int row, float top, float low) {
  int top_k = columns.top_k[row];
  float min_p = columns.min_p[row], top_p = columns.top_p[row], furthest = top_p < 1 ? kWeightless : kTooLate;
  if (min_p > 0) furthest = min(furthest, static_cast<float>(-log(static_cast<double>(min_p))));
  int rank = top_k > 0 && top_k < VOCAB ? top_k : 0;
  Draw draw = {kRace, top, 1.f / columns.temperature[row], -kLargest, furthest, 0.f, 1.f, 1.f, rank, top_p, 0};
  draw.seed = columns.seed[row];
  draw.position = columns.num_tokens[row];
  if (rank > 0) {
    draw.kind = rank <= kMaxClassRank ? kList : kAlone;
    draw.races_below = 0;
  } else if (top_p < 1) {
    draw.kind = kWeigh;
    float span = min(draw.distance(low), furthest);
    draw.places_a_unit = span > 0 ? min((kNumBins - 1) / span, kLargest) : 0;
  }
  return draw;
}

// The place whose tokens are listed: those before it race.
DEVICE void list_place(Draw& draw, int place) {
  draw.races_below = place;
  draw.listed_below = place == kNumBins - 1 ? kInfinity : place + 1;
}

// No token is listed: what is kept of the whole row races.
DEVICE void take_whole_row(Draw& draw) {
  draw.kind = kAlone;
  draw.least = -kLargest;
  draw.places_a_unit = 0;
  draw.races_below = 1;
  draw.listed_below = 1;
  draw.target = 0;
}

// Raises draw.least to what top-k and top-p leave of the source. source(visit) calls visit(logit) for this thread's share of the logits
// that may be kept; draw is in shared memory.
template <class Source>
DEVICE void narrow(const Source& source, Draw& draw) {
  auto sum = [](u64 a, u64 b) { return a + b; };
  KeySpan span = {kLastKey, 0};
  u64 count = 0;
  source([&](float logit) {
    if (draw.keeps(logit)) span = join(span, {key_of(logit), key_of(logit)}), count++;
  });
  span = block_reduce(span, [](KeySpan a, KeySpan b) { return join(a, b); });
  count = block_reduce(count, sum);
  if (draw.rank > 0 && static_cast<u64>(draw.rank) < count) {
    auto by_count = [&](auto visit) {
      source([&](float logit) {
        if (draw.keeps(logit)) visit(key_of(logit), 1);
      });
    };
    span.high = reach(by_count, span, draw.rank);
    if (threadIdx.x == 0) draw.least = logit_of(span.high);
    __syncthreads();
  }
  if (draw.top_p >= 1) return;
  auto by_weight = [&](auto visit) {
    source([&](float logit) {
      if (draw.keeps(logit)) visit(key_of(logit), weight_of(draw.distance(logit)));
    });
  };
  u64 target = draw.target;
  if (target == 0) {
    u64 total = 0;
    by_weight([&](u32, u64 weight) { total += weight; });
    target = top_p_target(block_reduce(total, sum), draw.top_p);
  }
  span.low = reach(by_weight, span, target);
  if (threadIdx.x == 0) draw.least = logit_of(span.low);
  __syncthreads();
}
