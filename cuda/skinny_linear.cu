// y = x w^T for a handful of tokens, with what stands before and after the product in a decoder's block.
//
// The weights are read once and nothing else is of any size: the floor is their bytes over the memory's rate. A warp streams its part of
// them through a ring in shared memory, several stages ahead, also from one tile of rows to the next. They are the mma's A (16 rows of w
// by 16 channels), tokens its B (8 at a time). The order of the channels in a product is free as long as both sides agree: a lane takes
// 8 neighbouring channels, 16 bytes, and they serve two mma of 16.
//
// A block computes a tile of 16 rows of w for all tokens, then the next that is its own. Its warps share the channels, and are summed
// through shared memory in their order.
//
// Defines: IN, OUT channels; TOKENS 8 or 16; STAGE channels of a stage, a multiple of 32 that divides IN; NUM_STAGES; NORMED 1: x is the float32 residual stream, RMS-normed on the way (arXiv 1910.07467). The norm's factor belongs to a token, so it is
// applied to the sums: the squares add up beside the product.
#include "ptx.cuh"
#if defined(QKV)
#include "cache.cuh"
#endif

constexpr int kWarps = 8;
constexpr int kThreads = kWarps * WARP;
constexpr int kChunk = 32;  // channels that two mma take
constexpr int kTokenTiles = TOKENS / 8;
constexpr int kRows = 16;
constexpr int kStages = IN / STAGE;      // of a row
constexpr int kPitch = STAGE + kChunk;   // elements from row to row: quarters of a warp read two rows without bank conflicts
constexpr int kStageElements = kRows * kPitch;

struct Sums {
  float of[kTokenTiles][4];
  float squares[kTokenTiles];  // of token 8 * tile + lane / 4, over this lane's channels
};

struct Shared {
  float sums[kWarps][kRows][TOKENS + 1];  // one more, against bank conflicts
  float squares[kWarps][TOKENS];
};

// A tile's rows of w: eight from `low` on and eight from `high` on, which are row i and row i + 8 of the product.
struct Rows {
  int low, high;

  DEVICE int operator[](int i) const { return i < 8 ? low + i : high + i - 8; }
};

// Brings a warp's stages in the order in which it computes them: every kWarps-th of a tile, so that the block reads along the rows.
template <typename RowsOf>
struct Loader {
  const Element* weight;
  Element* ring;
  RowsOf rows_of;
  int num_tiles;
  int tile, stage, slot;

  DEVICE Loader(const Element* weight, Element* ring, RowsOf rows_of, int num_tiles)
      : weight(weight), ring(ring), rows_of(rows_of), num_tiles(num_tiles), tile(blockIdx.x), stage(warp_id()), slot(0) {}

  // Always commits a group, so that the groups count the stages.
  DEVICE void load() {
    while (stage >= kStages && tile < num_tiles) stage = warp_id(), tile += gridDim.x;
    if (tile < num_tiles && stage < kStages) {
      copy(rows_of(tile));
      stage += kWarps;
    }
    copy_async_commit();
    slot = slot + 1 == NUM_STAGES ? 0 : slot + 1;
  }

 private:
  DEVICE void copy(const Rows& rows) {
    constexpr int kPerRow = STAGE / 8, kPieces = kRows * kPerRow;
    Element* to = ring + slot * kStageElements;
#pragma unroll
    for (int piece = lane_id(); piece < kPieces; piece += WARP) {
      int row = piece / kPerRow, channel = piece % kPerRow * 8;
      const Element* from = weight + (i64)rows[row] * IN + stage * STAGE + channel;
      copy_async16(to + row * kPitch + channel, from, true);
    }
  }
};

#if NORMED
using Input = float;
// 8 channels of the residual stream, weighted; adds their squares.
DEVICE uint4 load_input(const float* x, const float* norm, float& squares) {
  float4 a = *reinterpret_cast<const float4*>(x), b = *reinterpret_cast<const float4*>(x + 4);
  float4 u = *reinterpret_cast<const float4*>(norm), v = *reinterpret_cast<const float4*>(norm + 4);
  squares += a.x * a.x + a.y * a.y + a.z * a.z + a.w * a.w + b.x * b.x + b.y * b.y + b.z * b.z + b.w * b.w;
  return make_uint4(pack(a.x * u.x, a.y * u.y), pack(a.z * u.z, a.w * u.w), pack(b.x * v.x, b.y * v.y), pack(b.z * v.z, b.w * v.w));
}
#else
using Input = Element;
DEVICE uint4 load_input(const Element* x, const float* norm, float& squares) { return *reinterpret_cast<const uint4*>(x); }
#endif

// A stage: kRows rows in the ring.
DEVICE void multiply(Sums& sums, const Element* stage, const Input* x, const float* norm, int first_channel, int num_tokens) {
  int token = lane_id() / 4, own = lane_id() % 4 * 8;
#pragma unroll
  for (int chunk = 0; chunk < STAGE; chunk += kChunk) {
    const Element* row = stage + token * kPitch + chunk + own;
    uint4 low = *reinterpret_cast<const uint4*>(row), high = *reinterpret_cast<const uint4*>(row + 8 * kPitch);
    const u32 first[4] = {low.x, high.x, low.y, high.y}, second[4] = {low.z, high.z, low.w, high.w};
    int channel = first_channel + chunk + own;
#pragma unroll
    for (int j = 0; j < kTokenTiles; ++j) {
      uint4 b = make_uint4(0, 0, 0, 0);
      if (j * 8 + token < num_tokens) b = load_input(x + (i64)(j * 8 + token) * IN + channel, norm + channel, sums.squares[j]);
      mma_16816(sums.of[j], first, b.x, b.y);
      mma_16816(sums.of[j], second, b.z, b.w);
    }
  }
}

DEVICE void share(Shared& shared, Sums& sums) {
  int row = lane_id() / 4, token = lane_id() % 4 * 2;
#pragma unroll
  for (int j = 0; j < kTokenTiles; ++j) {
    float(&of)[4] = sums.of[j];
    float* low = &shared.sums[warp_id()][row][j * 8 + token];
    float* high = &shared.sums[warp_id()][row + 8][j * 8 + token];
    low[0] = of[0], low[1] = of[1], high[0] = of[2], high[1] = of[3];
    float squares = sums.squares[j];
    squares += __shfl_xor_sync(0xffffffffu, squares, 1);
    squares += __shfl_xor_sync(0xffffffffu, squares, 2);
    if (lane_id() % 4 == 0) shared.squares[warp_id()][j * 8 + row] = squares;
  }
}

// The product's element, of a row of this block.
DEVICE float result(const Shared& shared, int row, int token, float eps) {
  float sum = 0, squares = 0;
#pragma unroll
  for (int warp = 0; warp < kWarps; ++warp) {
    sum += shared.sums[warp][row][token];
    squares += shared.squares[warp][token];
  }
  return NORMED ? sum * rsqrtf(squares / IN + eps) : sum;
}

// Every tile of this block: its sums to `store`, which all threads call with the tile's number.
template <typename RowsOf, typename Store>
DEVICE void compute(const Element* weight, const Input* x, const float* norm, int num_tokens, int num_tiles, RowsOf rows_of, Store store) {
  SHARED_BYTES(bytes);
  Shared& shared = *reinterpret_cast<Shared*>(bytes);
  constexpr int kHead = (sizeof(Shared) + 127) / 128 * 128;
  Element* ring = reinterpret_cast<Element*>(bytes + kHead) + warp_id() * NUM_STAGES * kStageElements;
  Loader<RowsOf> loader(weight, ring, rows_of, num_tiles);
#pragma unroll
  for (int i = 0; i < NUM_STAGES - 1; ++i) loader.load();
  wait_for_previous_kernel();  // the weights do not depend on it
  int slot = 0;
  for (int tile = blockIdx.x; tile < num_tiles; tile += gridDim.x) {
    if (tile + gridDim.x >= num_tiles) let_next_kernel_begin();
    Sums sums = {};
    for (int stage = warp_id(); stage < kStages; stage += kWarps) {
      copy_async_wait<NUM_STAGES - 2>();
      __syncwarp();
      loader.load();
      multiply(sums, ring + slot * kStageElements, x, norm, stage * STAGE, num_tokens);
      slot = slot + 1 == NUM_STAGES ? 0 : slot + 1;
      __syncwarp();
    }
    share(shared, sums);
    __syncthreads();
    store(shared, tile);
    __syncthreads();
  }
}

DEVICE float biased(float value, const Element* bias, int row) { return bias ? value + to_float(bias[row]) : value; }

#if defined(STORED) || defined(ADDED)
struct InOrder {
  DEVICE Rows operator()(int tile) const { return {tile * kRows, tile * kRows + 8}; }
};
#endif

#if defined(STORED)
// y Element [tokens, OUT]. OUT: a multiple of 16.
extern "C" __global__ void __launch_bounds__(kThreads)
    skinny_linear(const Element* weight, const Element* bias, const Input* x, const float* norm, float eps, Element* y, int num_tokens) {
  compute(weight, x, norm, num_tokens, OUT / kRows, InOrder(), [&](const Shared& shared, int tile) {
    int base = tile * kRows;
    for (int i = threadIdx.x; i < kRows * num_tokens; i += kThreads) {
      int row = i % kRows, token = i / kRows;
      y[(i64)token * OUT + base + row] = from_float(biased(result(shared, row, token, eps), bias, base + row));
    }
  });
}

#elif defined(ADDED)
// residual float32 [tokens, OUT] += y. OUT: a multiple of 16.
extern "C" __global__ void __launch_bounds__(kThreads)
    skinny_linear(const Element* weight, const Element* bias, const Input* x, float* residual, int num_tokens) {
  compute(weight, x, nullptr, num_tokens, OUT / kRows, InOrder(), [&](const Shared& shared, int tile) {
    int base = tile * kRows;
    for (int i = threadIdx.x; i < kRows * num_tokens; i += kThreads) {
      int row = i % kRows, token = i / kRows;
      // Rounded as a product that is stored: the stream does not depend on which kernel computed it.
      residual[(i64)token * OUT + base + row] += to_float(from_float(biased(result(shared, row, token, 0), bias, base + row)));
    }
  });
}

#elif defined(GATED)
// y Element [tokens, OUT / 2] = silu(gate) * up of w's two halves: a tile has the same rows of both. OUT: a multiple of 16.
struct BothHalves {
  DEVICE Rows operator()(int tile) const { return {tile * 8, OUT / 2 + tile * 8}; }
};

extern "C" __global__ void __launch_bounds__(kThreads)
    skinny_linear(const Element* weight, const Element* bias, const Input* x, const float* norm, float eps, Element* y, int num_tokens) {
  compute(weight, x, norm, num_tokens, OUT / kRows, BothHalves(), [&](const Shared& shared, int tile) {
    int base = tile * 8;
    for (int i = threadIdx.x; i < 8 * num_tokens; i += kThreads) {
      int row = i % 8, token = i / 8;
      float gate = to_float(from_float(biased(result(shared, row, token, eps), bias, base + row)));
      float up = to_float(from_float(biased(result(shared, row + 8, token, eps), bias, OUT / 2 + base + row)));
      y[(i64)token * (OUT / 2) + base + row] = from_float(gate / (1.0f + expf(-gate)) * up);
    }
  });
}

#elif defined(QKV)
// Queries, rotated, to y Element [tokens, OUT]; keys, rotated, and values to the cache (cache_slots int32 [tokens], -1: nowhere).
// A tile has 8 channels of a head and those half a head further, which the rotation mixes. rope float32 [positions, HEAD_DIM]: cosines,
// then sines (RoFormer, arXiv 2104.09864). Heads: NUM_HEADS of queries, NUM_KV_HEADS of keys, as many of values.
constexpr int kHalf = HEAD_DIM / 2, kTilesPerHead = HEAD_DIM / kRows;

struct HalvesOfHeads {
  static DEVICE int first_row(int tile) { return tile / kTilesPerHead * HEAD_DIM + tile % kTilesPerHead * 8; }
  DEVICE Rows operator()(int tile) const { return {first_row(tile), first_row(tile) + kHalf}; }
};

DEVICE void store_cached(Element* cache, int head, int slot, int channel, float value) {
  Element* tile = cache + ((i64)(slot / BLOCK_SIZE) * NUM_KV_HEADS + head) * (BLOCK_SIZE * HEAD_DIM);
  tile[cache_offset(slot % BLOCK_SIZE, channel / CHUNK * CHUNK) + channel % CHUNK] = from_float(value);
}

extern "C" __global__ void __launch_bounds__(kThreads)
    skinny_linear(const Element* weight, const Element* bias, const Input* x, const float* norm, float eps, Element* y, const float* rope, const int* positions, const int* cache_slots, Element* keys, Element* values, int num_tokens) {
  compute(weight, x, norm, num_tokens, OUT / kRows, HalvesOfHeads(), [&](const Shared& shared, int tile) {
    int head = tile / kTilesPerHead, base = HalvesOfHeads::first_row(tile);
    for (int i = threadIdx.x; i < 8 * num_tokens; i += kThreads) {
      int row = i % 8, token = i / 8, channel = base % HEAD_DIM + row;
      float low = to_float(from_float(biased(result(shared, row, token, eps), bias, base + row)));
      float high = to_float(from_float(biased(result(shared, row + 8, token, eps), bias, base + kHalf + row)));
      if (head < NUM_HEADS + NUM_KV_HEADS) {
        const float* angles = rope + (i64)positions[token] * HEAD_DIM;
        float cosine = angles[channel], sine = angles[kHalf + channel], turned = low * cosine - high * sine;
        high = high * cosine + low * sine, low = turned;
      }
      if (head < NUM_HEADS) {
        Element* query = y + (i64)token * OUT + head * HEAD_DIM;
        query[channel] = from_float(low), query[kHalf + channel] = from_float(high);
      } else if (cache_slots[token] >= 0) {
        bool is_key = head < NUM_HEADS + NUM_KV_HEADS;
        int kv_head = head - NUM_HEADS - (is_key ? 0 : NUM_KV_HEADS);
        Element* cache = is_key ? keys : values;
        store_cached(cache, kv_head, cache_slots[token], channel, low);
        store_cached(cache, kv_head, cache_slots[token], kHalf + channel, high);
      }
    }
  });
}
#endif
