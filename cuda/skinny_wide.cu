// y = x w^T for more tokens than cuda/skinny_linear.cu takes, with what stands before and after the product in a decoder's block.
//
// x is too large to lie in shared memory, so it is streamed beside the weights, and a block computes TILES tiles of 16 rows at a time: TOKENS
// rows of x come from the cache for TILES * 16 rows of w from the memory. Otherwise as there: the warps share the channels, stream them
// through rings of their own, several stages ahead, also from one group of tiles to the next, and are summed through shared memory in
// their order.
//
// A normed x is the residual stream with the norm's weights in it, Element [tokens, IN], and the stream's squares float32 [IN / 16, TOKENS],
// each of 16 channels. Who adds to the stream writes both: the kernel ADDED, or skinny_input.cu. The norm's factor belongs to a token, so
// it is applied to the sums (arXiv 1910.07467).
//
// Where that alone would leave many multiprocessors without work or each with few rows for all of x, the channels are cut into SLICES too,
// which different blocks compute. The last block of a group of tiles that is done adds them up, in the slices' order.
//
// Defines: IN, OUT channels; TOKENS 32; TILES; SLICES; STAGE channels of a stage, 32, 64 or 128, a divisor of a slice; NUM_STAGES.
#include "skinny_wide.cuh"

#if defined(STORED)
// y Element [tokens, OUT]. OUT: a multiple of 16, as for all. parts, counters: of the meeting; null for one slice.
extern "C" __global__ void __launch_bounds__(kThreads, 1)
    skinny_wide(const Element* weight, const Element* bias, const Element* x, Element* y, int num_tokens, float4* parts, int* counters) {
  auto store = [&](const Shared& shared, int tile, Nothing prepared) {
#pragma unroll
    for (int k = 0; k < kOwn; ++k) {
      Spot spot(k);
      int channel = tile * kRows + spot.row;
      if (spot.token < num_tokens)
        y[(i64)spot.token * OUT + channel] = from_float(biased(result(shared, spot.row, spot.token), bias, channel));
    }
  };
  compute(weight, x, num_tokens, InOrder(), NoBegin(), NoPrepare(), store, {parts, counters});
}

#elif defined(ADDED)
// residual float32 [tokens, OUT] += y; then, for the norm that follows, weighted Element [tokens, OUT] = residual * norm, and squares float32
// [OUT / 16, TOKENS] of the residual.
struct Before {
  float residual[kOwn], norm;
};

extern "C" __global__ void __launch_bounds__(kThreads, 1)
    skinny_wide(const Element* weight, const Element* bias, const Element* x, float* residual, const float* norm, Element* weighted, float* squares, int num_tokens, float4* parts, int* counters) {
  static_assert(kThreads % kRows == 0 && WARP % kRows == 0, "a thread's elements are of one row, and a token's of one warp");
  int row = Spot(0).row;
  auto prepare = [&](const Shared& shared, int tile) {
    Before before = {};
    if (!kWhole && tile >= kTiles) return before;
    before.norm = norm[tile * kRows + row];
#pragma unroll
    for (int k = 0; k < kOwn; ++k) {
      int token = Spot(k).token;
      if (token < num_tokens) before.residual[k] = residual[(i64)token * OUT + tile * kRows + row];
    }
    return before;
  };
  auto store = [&](const Shared& shared, int tile, const Before& before) {
    int channel = tile * kRows + row;
#pragma unroll
    for (int k = 0; k < kOwn; ++k) {
      int token = Spot(k).token;
      float sum = before.residual[k] + rounded(biased(result(shared, row, token), bias, channel)), square = sum * sum;
#pragma unroll
      for (int other = kRows / 2; other > 0; other /= 2) square += __shfl_xor_sync(0xffffffffu, square, other);
      if (token >= num_tokens) continue;
      residual[(i64)token * OUT + channel] = sum;
      weighted[(i64)token * OUT + channel] = from_float(sum * before.norm);
      if (row == 0) squares[tile * TOKENS + token] = square;
    }
  };
  compute(weight, x, num_tokens, InOrder(), NoBegin(), prepare, store, {parts, counters});
}

#elif defined(GATED)
// y Element [tokens, OUT / 2] = silu(gate) * up of w's two halves, of a normed x.
extern "C" __global__ void __launch_bounds__(kThreads, 1)
    skinny_wide(const Element* weight, const Element* bias, const Element* x, const float* squares, float eps, Element* y, int num_tokens) {
  auto begin = [&](Shared& shared) { add_squares(shared, squares); };
  auto store = [&](const Shared& shared, int tile, Nothing prepared) {
#pragma unroll
    for (int k = 0; k < kOwn / 2; ++k) {
      int i = threadIdx.x + k * kThreads, row = i % 8, token = i / 8, channel = tile * 8 + row;
      if (token >= num_tokens) continue;
      float gate = rounded(biased(normed_result(shared, row, token, eps), bias, channel));
      float up = rounded(biased(normed_result(shared, row + 8, token, eps), bias, OUT / 2 + channel));
      y[(i64)token * (OUT / 2) + channel] = from_float(gate / (1.0f + expf(-gate)) * up);
    }
  };
  compute(weight, x, num_tokens, BothHalves(), begin, NoPrepare(), store, {});
}

#elif defined(QKV)
// Of a normed x: queries, rotated, to y Element [tokens, OUT]; keys, rotated, and values to the cache (cache_slots int32 [tokens], -1: nowhere).
// rope float32 [positions, HEAD_DIM]: cosines, then sines (RoFormer, arXiv 2104.09864).
struct Angles {
  float cosines[kOwn / 2], sines[kOwn / 2];
};

extern "C" __global__ void __launch_bounds__(kThreads, 1)
    skinny_wide(const Element* weight, const Element* bias, const Element* x, const float* squares, float eps, Element* y, const float* rope, const int* positions, const int* cache_slots, Element* keys, Element* values, int num_tokens) {
  constexpr int kRotated = NUM_HEADS + NUM_KV_HEADS;
  auto begin = [&](Shared& shared) {
    if (threadIdx.x < num_tokens) {
      shared.positions[threadIdx.x] = positions[threadIdx.x];
      shared.cache_slots[threadIdx.x] = cache_slots[threadIdx.x];
    }
    add_squares(shared, squares);
  };
  auto prepare = [&](const Shared& shared, int tile) {
    Angles angles = {};
#pragma unroll
    for (int k = 0; k < kOwn / 2; ++k) {
      int i = threadIdx.x + k * kThreads, token = i / 8, channel = HalvesOfHeads::first_row(tile) % HEAD_DIM + i % 8;
      if (tile / kTilesPerHead >= kRotated || token >= num_tokens) continue;
      const float* of = rope + (i64)shared.positions[token] * HEAD_DIM + channel;
      angles.cosines[k] = of[0], angles.sines[k] = of[kHalf];
    }
    return angles;
  };
  auto store = [&](const Shared& shared, int tile, const Angles& angles) {
    int head = tile / kTilesPerHead, base = HalvesOfHeads::first_row(tile);
#pragma unroll
    for (int k = 0; k < kOwn / 2; ++k) {
      int i = threadIdx.x + k * kThreads, row = i % 8, token = i / 8, channel = base % HEAD_DIM + row;
      if (token >= num_tokens) continue;
      float low = rounded(biased(normed_result(shared, row, token, eps), bias, base + row));
      float high = rounded(biased(normed_result(shared, row + 8, token, eps), bias, base + kHalf + row));
      if (head < kRotated) {
        float turned = low * angles.cosines[k] - high * angles.sines[k];
        high = high * angles.cosines[k] + low * angles.sines[k], low = turned;
      }
      if (head < NUM_HEADS) {
        Element* query = y + (i64)token * OUT + head * HEAD_DIM;
        query[channel] = from_float(low), query[kHalf + channel] = from_float(high);
      } else if (shared.cache_slots[token] >= 0) {
        Element* cache = head < kRotated ? keys : values;
        int kv_head = (head - NUM_HEADS) % NUM_KV_HEADS;
        store_cached(cache, kv_head, shared.cache_slots[token], channel, low);
        store_cached(cache, kv_head, shared.cache_slots[token], kHalf + channel, high);
      }
    }
  };
  compute(weight, x, num_tokens, HalvesOfHeads(), begin, prepare, store, {});
}
#endif
