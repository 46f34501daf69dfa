// y = x w^T for a handful of tokens, with what stands before and after the product in a decoder's block.
//
// The weights are read once and nothing else is of any size: the floor is their bytes over the memory's rate. A warp streams its part of
// them through a ring in shared memory, several stages ahead, also from one tile of rows to the next. They are the mma's A (16 rows of w
// by 16 channels), tokens its B (8 at a time). The order of the channels in a product is free as long as both sides agree: a lane takes
// 8 neighbouring channels, 16 bytes, and they serve two mma of 16.
//
// A block computes a tile of 16 rows of w for all tokens, then the next that is its own. Its warps share the channels, and are summed
// through shared memory in their order. x lies in shared memory too: a normed one whole, another a stage at a time beside the weights.
//
// Defines: IN, OUT channels; TOKENS 8 or 16; STAGE channels of a stage, a multiple of 32 that divides IN; NUM_STAGES; NORMED 1: x is the
// float32 residual stream, RMS-normed on the way (arXiv 1910.07467). The norm's factor belongs to a token, so it is applied to the sums: the
// squares add up beside the product.
#include "skinny_product.cuh"

#if defined(STORED)
// y Element [tokens, OUT]. OUT: a multiple of 16.
extern "C" __global__ void __launch_bounds__(kThreads, 1)
    skinny_linear(const Element* weight, const Element* bias, const Input* x, const float* norm, float eps, Element* y, int num_tokens) {
  auto store = [&](const Shared& shared, int tile, float prepared) {
    int base = tile * kRows;
    for (int i = threadIdx.x; i < kRows * num_tokens; i += kThreads) {
      int row = i % kRows, token = i / kRows;
      y[(i64)token * OUT + base + row] = from_float(biased(result(shared, row, token, eps), bias, base + row));
    }
  };
  compute(weight, x, norm, num_tokens, InOrder(), NoBegin(), NoPrepare(), store);
}

#elif defined(ADDED)
// residual float32 [tokens, OUT] += y. OUT: a multiple of 16.
extern "C" __global__ void __launch_bounds__(kThreads, 1)
    skinny_linear(const Element* weight, const Element* bias, const Input* x, float* residual, int num_tokens) {
  static_assert(kRows * TOKENS <= kThreads, "a thread adds one element of a tile");
  int row = threadIdx.x % kRows, token = threadIdx.x / kRows;
  auto place = [&](int tile) { return residual + (i64)token * OUT + tile * kRows + row; };
  auto prepare = [&](int tile) { return token < num_tokens ? *place(tile) : 0.0f; };
  auto store = [&](const Shared& shared, int tile, float prepared) {
    if (token < num_tokens) *place(tile) = prepared + rounded(biased(result(shared, row, token, 0), bias, tile * kRows + row));
  };
  compute(weight, x, nullptr, num_tokens, InOrder(), NoBegin(), prepare, store);
}

#elif defined(GATED)
// y Element [tokens, OUT / 2] = silu(gate) * up of w's two halves: a tile has the same rows of both. OUT: a multiple of 16.
extern "C" __global__ void __launch_bounds__(kThreads, 1)
    skinny_linear(const Element* weight, const Element* bias, const Input* x, const float* norm, float eps, Element* y, int num_tokens) {
  auto store = [&](const Shared& shared, int tile, float prepared) {
    int base = tile * 8;
    for (int i = threadIdx.x; i < 8 * num_tokens; i += kThreads) {
      int row = i % 8, token = i / 8;
      float gate = rounded(biased(result(shared, row, token, eps), bias, base + row));
      float up = rounded(biased(result(shared, row + 8, token, eps), bias, OUT / 2 + base + row));
      y[(i64)token * (OUT / 2) + base + row] = from_float(gate / (1.0f + expf(-gate)) * up);
    }
  };
  compute(weight, x, norm, num_tokens, BothHalves(), NoBegin(), NoPrepare(), store);
}

#elif defined(QKV)
// Queries, rotated, to y Element [tokens, OUT]; keys, rotated, and values to the cache (cache_slots int32 [tokens], -1: nowhere).
// rope float32 [positions, HEAD_DIM]: cosines, then sines (RoFormer, arXiv 2104.09864).
extern "C" __global__ void __launch_bounds__(kThreads, 1)
    skinny_linear(const Element* weight, const Element* bias, const Input* x, const float* norm, float eps, Element* y, const float* rope, const int* positions, const int* cache_slots, Element* keys, Element* values, int num_tokens) {
  auto begin = [&](Shared& shared) {
    if (threadIdx.x < num_tokens) {
      shared.positions[threadIdx.x] = positions[threadIdx.x];
      shared.cache_slots[threadIdx.x] = cache_slots[threadIdx.x];
    }
  };
  auto store = [&](const Shared& shared, int tile, float prepared) {
    int head = tile / kTilesPerHead, base = HalvesOfHeads::first_row(tile);
    for (int i = threadIdx.x; i < 8 * num_tokens; i += kThreads) {
      int row = i % 8, token = i / 8, channel = base % HEAD_DIM + row;
      float low = rounded(biased(result(shared, row, token, eps), bias, base + row));
      float high = rounded(biased(result(shared, row + 8, token, eps), bias, base + kHalf + row));
      if (head < NUM_HEADS + NUM_KV_HEADS) {
        const float* angles = rope + (i64)shared.positions[token] * HEAD_DIM;
        float cosine = angles[channel], sine = angles[kHalf + channel], turned = low * cosine - high * sine;
        high = high * cosine + low * sine, low = turned;
      }
      if (head < NUM_HEADS) {
        Element* query = y + (i64)token * OUT + head * HEAD_DIM;
        query[channel] = from_float(low), query[kHalf + channel] = from_float(high);
      } else if (shared.cache_slots[token] >= 0) {
        bool is_key = head < NUM_HEADS + NUM_KV_HEADS;
        int kv_head = head - NUM_HEADS - (is_key ? 0 : NUM_KV_HEADS);
        Element* cache = is_key ? keys : values;
        store_cached(cache, kv_head, shared.cache_slots[token], channel, low);
        store_cached(cache, kv_head, shared.cache_slots[token], kHalf + channel, high);
      }
    }
  };
  compute(weight, x, norm, num_tokens, HalvesOfHeads(), begin, NoPrepare(), store);
}
#endif
