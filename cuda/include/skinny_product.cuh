// The product of cuda/skinny_linear.cu: weights streamed through rings in shared memory, tile after tile, and what is done with a tile's sums
// left to the kernel.
#pragma once

#include "ptx.cuh"
#include "skinny_rows.cuh"

constexpr int kWarps = 8;
constexpr int kThreads = kWarps * WARP;
constexpr int kTokenTiles = TOKENS / 8;
constexpr int kStages = IN / STAGE;      // of a row
constexpr int kPitch = STAGE + kChunk;   // elements from row to row: quarters of a warp read two rows without bank conflicts
constexpr int kStageRows = NORMED ? kRows : kRows + TOKENS;  // of weights, then of x
constexpr int kStageElements = kStageRows * kPitch;
constexpr int kInputPitch = IN + kChunk;
constexpr int kInputElements = NORMED ? TOKENS * kInputPitch : 0;

#if NORMED
using Input = float;
#else
using Input = Element;
#endif

struct Sums {
  float of[kTokenTiles][4];
};

struct Shared {
  float sums[kWarps][kRows][TOKENS + 1];  // one more, against bank conflicts
  float squares[kWarps][TOKENS];           // of the channels that each warp read of a normed x
#if defined(QKV)
  int positions[TOKENS], cache_slots[TOKENS];
#endif
};

// Brings a warp's stages in the order in which it computes them: every kWarps-th of a tile, so that the block reads along the rows.
template <typename RowsOf>
struct Loader {
  const Element* weight;
  const Input* x;
  int num_tokens;
  Element* ring;
  RowsOf rows_of;
  int num_tiles;
  int tile, stage, slot;

  DEVICE Loader(const Element* weight, const Input* x, int num_tokens, Element* ring, RowsOf rows_of, int num_tiles)
      : weight(weight), x(x), num_tokens(num_tokens), ring(ring), rows_of(rows_of), num_tiles(num_tiles),
        tile(blockIdx.x), stage(warp_id()), slot(0) {}

  // The next stage, or a part of it. Always commits a group, so that the groups count the stages.
  template <bool kWeights, bool kInput>
  DEVICE void load() {
    while (stage >= kStages && tile < num_tiles) stage = warp_id(), tile += gridDim.x;
    if (tile < num_tiles && stage < kStages) {
      if (kWeights) copy_weights(rows_of(tile));
      if (kInput && !NORMED) copy_input();
      stage += kWarps;
    }
    copy_async_commit();
    slot = slot + 1 == NUM_STAGES ? 0 : slot + 1;
  }

 private:
  static constexpr int kPerRow = STAGE / 8;

  DEVICE void copy_weights(const Rows& rows) {
    Element* to = ring + slot * kStageElements;
#pragma unroll
    for (int piece = lane_id(); piece < kRows * kPerRow; piece += WARP) {
      int row = piece / kPerRow, channel = piece % kPerRow * 8;
      copy_async16(to + row * kPitch + channel, weight + (i64)rows[row] * IN + stage * STAGE + channel, true);
    }
  }
  DEVICE void copy_input() {
    Element* to = ring + slot * kStageElements + kRows * kPitch;
    for (int piece = lane_id(); piece < num_tokens * kPerRow; piece += WARP) {
      int token = piece / kPerRow, channel = piece % kPerRow * 8;
      copy_async16(to + token * kPitch + channel, x + (i64)token * IN + stage * STAGE + channel, true);
    }
  }
};

#if NORMED
constexpr int kTogether = 4;  // tokens whose loads are in flight at once

struct Eight {
  float4 low, high;
};
DEVICE Eight read_eight(const float* from) {
  return {reinterpret_cast<const float4*>(from)[0], reinterpret_cast<const float4*>(from)[1]};
}
DEVICE float square(const float4& v) { return v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w; }

// Tokens from `first` on, kTogether of them at most: weighted, and their squares.
DEVICE void read_tokens(Shared& shared, Element* input, const float* x, const float* norm, int first, int num_tokens) {
  float squares[kTogether] = {};
#pragma unroll 2
  for (int channel = threadIdx.x * 8; channel < IN; channel += kThreads * 8) {
    Eight weights = read_eight(norm + channel), values[kTogether];
#pragma unroll
    for (int i = 0; i < kTogether; ++i)
      if (first + i < num_tokens) values[i] = read_eight(x + (i64)(first + i) * IN + channel);
#pragma unroll
    for (int i = 0; i < kTogether; ++i) {
      if (first + i >= num_tokens) break;
      const float4 &a = values[i].low, &b = values[i].high, &u = weights.low, &v = weights.high;
      squares[i] += square(a) + square(b);
      uint4 words = make_uint4(
          pack(a.x * u.x, a.y * u.y), pack(a.z * u.z, a.w * u.w), pack(b.x * v.x, b.y * v.y), pack(b.z * v.z, b.w * v.w));
      *reinterpret_cast<uint4*>(input + (first + i) * kInputPitch + channel) = words;
    }
  }
#pragma unroll
  for (int i = 0; i < kTogether; ++i) {
#pragma unroll
    for (int other = WARP / 2; other > 0; other /= 2) squares[i] += __shfl_xor_sync(0xffffffffu, squares[i], other);
    if (lane_id() == 0 && first + i < num_tokens) shared.squares[warp_id()][first + i] = squares[i];
  }
}

// The whole of x. All threads; a __syncthreads follows.
DEVICE void read_input(Shared& shared, Element* input, const float* x, const float* norm, int num_tokens) {
  for (int first = 0; first < num_tokens; first += kTogether) read_tokens(shared, input, x, norm, first, num_tokens);
}
#endif

// A stage; input: x from the stage's first channel on, rows of input_pitch.
DEVICE void multiply(Sums& sums, const Element* stage, const Element* input, int input_pitch, int num_tokens) {
  int token = lane_id() / 4, own = lane_id() % 4 * 8;
#pragma unroll
  for (int chunk = 0; chunk < STAGE; chunk += kChunk) {
    const Element* row = stage + token * kPitch + chunk + own;
    uint4 low = *reinterpret_cast<const uint4*>(row), high = *reinterpret_cast<const uint4*>(row + 8 * kPitch);
    const u32 first[4] = {low.x, high.x, low.y, high.y}, second[4] = {low.z, high.z, low.w, high.w};
#pragma unroll
    for (int j = 0; j < kTokenTiles; ++j) {
      uint4 b = make_uint4(0, 0, 0, 0);
      if (j * 8 + token < num_tokens) b = *reinterpret_cast<const uint4*>(input + (j * 8 + token) * input_pitch + chunk + own);
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
  }
}

// The product's element, of a row of this block.
DEVICE float result(const Shared& shared, int row, int token, float eps) {
  float sum = 0, squares = 0;
#pragma unroll
  for (int warp = 0; warp < kWarps; ++warp) {
    sum += shared.sums[warp][row][token];
    if (NORMED) squares += shared.squares[warp][token];
  }
  return NORMED ? sum * rsqrtf(squares / IN + eps) : sum;
}

// Every tile of this block: its sums to `store`, which all threads call with the tile's number, and with what `prepare` gave them for it
// before the sums were there.
template <typename RowsOf, typename Begin, typename Prepare, typename Store>
DEVICE void compute(
    const Element* weight, const Input* x, const float* norm, int num_tokens, RowsOf rows_of, Begin begin, Prepare prepare,
    Store store) {
  SHARED_BYTES(bytes);
  Shared& shared = *reinterpret_cast<Shared*>(bytes);
  constexpr int kHead = (sizeof(Shared) + 127) / 128 * 128, kTiles = OUT / kRows;
  Element* input = reinterpret_cast<Element*>(bytes + kHead);
  Element* ring = input + kInputElements + warp_id() * NUM_STAGES * kStageElements;
  Loader<RowsOf> loader(weight, x, num_tokens, ring, rows_of, kTiles);
  Loader<RowsOf> early = loader;
#pragma unroll
  for (int i = 0; i < NUM_STAGES - 1; ++i) early.template load<true, false>();
  wait_for_previous_kernel();  // the weights do not depend on it
#pragma unroll
  for (int i = 0; i < NUM_STAGES - 1; ++i) loader.template load<false, true>();
#if NORMED
  read_input(shared, input, x, norm, num_tokens);
#endif
  begin(shared);
  __syncthreads();
  int slot = 0;
  for (int tile = blockIdx.x; tile < kTiles; tile += gridDim.x) {
    if (tile + gridDim.x >= kTiles) let_next_kernel_begin();
    float prepared = prepare(tile);
    Sums sums = {};
    for (int stage = warp_id(); stage < kStages; stage += kWarps) {
      copy_async_wait<NUM_STAGES - 2>();
      __syncwarp();
      loader.template load<true, true>();
      const Element* weights = ring + slot * kStageElements;
      const Element* inputs = NORMED ? input + stage * STAGE : weights + kRows * kPitch;
      multiply(sums, weights, inputs, NORMED ? kInputPitch : kPitch, num_tokens);
      slot = slot + 1 == NUM_STAGES ? 0 : slot + 1;
      __syncwarp();
    }
    share(shared, sums);
    __syncthreads();
    store(shared, tile, prepared);
    __syncthreads();
  }
}

struct NoBegin {
  DEVICE void operator()(Shared& shared) const {}
};
struct NoPrepare {
  DEVICE float operator()(int tile) const { return 0; }
};
