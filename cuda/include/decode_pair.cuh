// Attention of one warp over tiles of one pair, by mma.m16n8k16: scores are queries (a KV head's group, padded to 16 rows) times keys,
// the result is kept transposed, values^T times weights^T, so that no more than 8 columns are padding. Online softmax in registers in
// base 2, as in FlashAttention-2 (arXiv 2307.08691).
#pragma once

#include "decode_ring.cuh"

constexpr int kHalves = kGroup > 8 ? 2 : 1;  // eights of heads
constexpr int kSteps = HEAD_DIM / 16;
constexpr int kPartRow = HEAD_DIM + 4;  // floats a query of a part: the sum of weighted values, then maximum and sum of weights
constexpr int kPartFloats = kGroup * kPartRow;
constexpr float kLog2e = 1.44269504f;
constexpr float kLowest = -3e38f;  // below every score
// Whether a pair's queries stay in registers; where they do not fit, each tile reads them anew, from the first-level cache.
constexpr bool kHoldsQueries = HEAD_DIM * kHalves <= 256;

static_assert(kGroup <= 16 && kGroup * NUM_KV_HEADS == NUM_HEADS, "at most 16 query heads share a KV head");
static_assert(HEAD_DIM % 32 == 0 && BLOCK_SIZE % kTile == 0, "tiles are whole");

// 1 - 2 / (1 + e^2x), exact to 1e-7.
DEVICE float tanh_fast(float x) { return 1 - 2 / (1 + exp2_fast(2 * kLog2e * x)); }

// Lane l has the scores, maxima and sums of head l / 4 of each half, and of the result channels l / 4 + 8 i of heads 2 (l % 4) and the
// next of each half.
struct Pair {
  const Element* query;  // head l / 4, from channel 2 (l % 4) on
  u32 queries[kHoldsQueries ? kSteps : 1][2 * kHalves];
  float out[kSteps][kHalves][4];     // of 16 channels the first eight and the last, for both heads each
  float max[kHalves], sum[kHalves];  // sum: of this lane's tokens

  // qkv Element [tokens, NUM_HEADS + 2 NUM_KV_HEADS, HEAD_DIM]
  DEVICE void begin(const Element* qkv, const Tile& tile) {
    i64 head = static_cast<i64>(tile.token) * (NUM_HEADS + 2 * NUM_KV_HEADS) + tile.head * kGroup + lane_id() / 4;
    query = qkv + head * HEAD_DIM + lane_id() % 4 * 2;
    if (kHoldsQueries) {
#pragma unroll
      for (int i = 0; i < kSteps * 2 * kHalves; ++i)
        queries[i / (2 * kHalves)][i % (2 * kHalves)] = read_query(i / (2 * kHalves), i % (2 * kHalves));
    }
#pragma unroll
    for (int i = 0; i < kSteps * kHalves * 4; ++i) out[i / (4 * kHalves)][i / 4 % kHalves][i % 4] = 0;
#pragma unroll
    for (int half = 0; half < kHalves; ++half) max[half] = kLowest, sum[half] = 0;
  }

  DEVICE void add(const Tile& tile, const Stage& stage, float scale, float softcap) {
    float scores[2][4] = {};  // of tokens 0 to 7 and 8 to 15: two of a head of the first half, two of one of the second
    multiply_keys(scores, stage.keys);
#pragma unroll
    for (int i = 0; i < 8; ++i) scores[i / 4][i % 4] = shape_score(scores[i / 4][i % 4], scale, softcap);
    u32 seen[2];  // ones in the halves of words that hold tokens which are seen
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      int place = tile.first + i / 2 * 8 + lane_id() % 4 * 2 + i % 2;
      bool is_seen = place < tile.context && place >= first_seen(tile.context);
      if (!is_seen) scores[i / 2][i % 2] = scores[i / 2][i % 2 + 2] = kLowest;
      seen[i / 2] = (i % 2 == 0 ? 0 : seen[i / 2]) | (is_seen ? 0xffffu << i % 2 * 16 : 0);
    }
#pragma unroll
    for (int half = 0; half < kHalves; ++half) soften(scores, half);
    multiply_values(scores, seen, stage.values);
  }

  // Result of a whole pair; result Element [tokens, NUM_HEADS, HEAD_DIM].
  DEVICE void write(Element* result, const Tile& tile) const {
    bool odd = lane_id() / 4 % 2 == 1;  // lanes of two channels in turn: the even one writes the first head's, the odd the second's
    i64 first = static_cast<i64>(tile.token) * NUM_HEADS + tile.head * kGroup;
#pragma unroll
    for (int half = 0; half < kHalves; ++half) {
      float factor = 1 / total(half), factors[2] = {of_head(factor, 0), of_head(factor, 1)};
      int head = half * 8 + lane_id() % 4 * 2 + odd;
      u32* to = reinterpret_cast<u32*>(result + (first + head) * HEAD_DIM) + lane_id() / 8;
#pragma unroll
      for (int i = 0; i < kSteps * 2; ++i) {
        const float* both = out[i / 2][half] + i % 2 * 2;
        float mine[2] = {both[0] * factors[0], both[1] * factors[1]};
        float other = __shfl_xor_sync(~0u, odd ? mine[0] : mine[1], 4);
        if (head < kGroup) to[i * 4] = odd ? pack(other, mine[1]) : pack(mine[0], other);
      }
    }
  }

  // Result of a part of a pair, kPartFloats floats.
  DEVICE void write_part(float* part) const {
#pragma unroll
    for (int half = 0; half < kHalves; ++half) {
      float weights = total(half);
      int head = half * 8 + lane_id() / 4, first = half * 8 + lane_id() % 4 * 2;
      if (lane_id() % 4 == 0 && head < kGroup) {
        part[head * kPartRow + HEAD_DIM] = max[half];
        part[head * kPartRow + HEAD_DIM + 1] = weights;
      }
#pragma unroll
      for (int i = 0; i < kSteps * 4; ++i) {
        float* to = part + (first + i % 2) * kPartRow + lane_id() / 4 + i / 2 * 8;
        if (first + i % 2 < kGroup) *to = out[i / 4][half][i % 4];
      }
    }
  }

 private:
  // Channels 2 (l % 4) and the next of 16 (part < kHalves), or of the last eight of them; of each half.
  DEVICE u32 read_query(int step, int part) const {
    int half = part % kHalves;
    if (lane_id() / 4 + half * 8 >= kGroup) return 0;
    return *reinterpret_cast<const u32*>(query + half * 8 * HEAD_DIM + step * 16 + part / kHalves * 8);
  }
  DEVICE u32 query_word(int step, int part) const { return kHoldsQueries ? queries[step][part] : read_query(step, part); }

  // Sum of weights of head l / 4, over its four lanes.
  DEVICE float total(int half) const {
    float all = sum[half];
    all += __shfl_xor_sync(~0u, all, 1);
    return all + __shfl_xor_sync(~0u, all, 2);
  }
  // What the lanes of head 2 (l % 4) + second have.
  static DEVICE float of_head(float mine, int second) { return __shfl_sync(~0u, mine, lane_id() % 4 * 8 + second * 4); }

  DEVICE void multiply_keys(float (&scores)[2][4], const Element* keys) const {
    int base = tile_offset(lane_id() / 16 * 8 + lane_id() % 8, lane_id() / 8 % 2 * 8);
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      u32 key[4];  // of both halves of the tokens: channels 0 to 7, 8 to 15
      load_matrix_x4(key, keys + tile_step(base, step));
      u32 fragment[4] = {query_word(step, 0), kHalves == 2 ? query_word(step, 1) : 0, query_word(step, kHalves),
                         kHalves == 2 ? query_word(step, 2 * kHalves - 1) : 0};
      mma_16816(scores[0], fragment, key[0], key[1]);
      mma_16816(scores[1], fragment, key[2], key[3]);
    }
  }

  // A product as a score in base 2.
  static DEVICE float shape_score(float product, float scale, float softcap) {
    if (SOFTCAP) return softcap * kLog2e * tanh_fast(product * scale / softcap);
    return product * (scale * kLog2e);
  }

  // Scores to weights under the new maxima, to which sums and out are brought.
  DEVICE void soften(float (&scores)[2][4], int half) {
    float(&first)[4] = scores[0], (&second)[4] = scores[1];
    float top = fmaxf(fmaxf(first[2 * half], first[2 * half + 1]), fmaxf(second[2 * half], second[2 * half + 1]));
    top = fmaxf(top, __shfl_xor_sync(~0u, top, 1));
    top = fmaxf(fmaxf(top, __shfl_xor_sync(~0u, top, 2)), max[half]);
    float factor = exp2_fast(max[half] - top), weights = 0;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      float& score = scores[i / 2][2 * half + i % 2];
      score = exp2_fast(score - top);
      weights += score;
    }
    max[half] = top;
    sum[half] = fmaf(sum[half], factor, weights);
    float factors[2] = {of_head(factor, 0), of_head(factor, 1)};
#pragma unroll
    for (int i = 0; i < kSteps * 4; ++i) out[i / 4][half][i % 4] *= factors[i % 2];
  }

  // out += values^T weights^T. What lies in the cache where no token is seen may be anything, NaN too: it is cleared.
  // A score's registers hold the transposed weights as they are: lane l has head l / 4, tokens 2 (l % 4) and the next.
  DEVICE void multiply_values(const float (&weights)[2][4], const u32 (&seen)[2], const Element* values) {
    u32 weight[kHalves][2];
#pragma unroll
    for (int i = 0; i < 2 * kHalves; ++i) weight[i / 2][i % 2] = pack(weights[i % 2][i / 2 * 2], weights[i % 2][i / 2 * 2 + 1]);
    int base = tile_offset(lane_id() % 16, lane_id() / 16 * 8);
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      u32 value[4];  // of both halves of 16 channels: tokens 0 to 7, 8 to 15
      load_matrix_x4_transposed(value, values + tile_step(base, step));
      u32 fragment[4] = {value[0] & seen[0], value[2] & seen[0], value[1] & seen[1], value[3] & seen[1]};
#pragma unroll
      for (int half = 0; half < kHalves; ++half) mma_16816(out[step][half], fragment, weight[half][0], weight[half][1]);
    }
  }
};
