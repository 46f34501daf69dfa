// Attention of packed inputs whose tokens see each other, as an encoder's do: qkv Element [tokens, 3 * NUM_HEADS * HEAD_DIM], no
// padding, no cache. Input i's tokens are starts[i] to starts[i + 1]. With WINDOW > 0 a token sees those at most WINDOW / 2 away.
#define BLOCK_SIZE 16  // cache.cuh wants one; nothing is paged here
#include "attention_inputs.cuh"
#include "attention_mma.cuh"

constexpr int kWidth = NUM_HEADS * HEAD_DIM;
#if __CUDA_ARCH__ >= 1000
constexpr int kBlocks = 2;  // a multiprocessor: three would leave this compiler too few registers
#else
constexpr int kBlocks = HEAD_DIM <= 64 ? 3 : 2;
#endif

// What a block works on: tokens of one input, one head.
struct Work {
  int start, num_tokens;  // of the input
  int first;              // of the tile in the input
  int head;
};

// The attention Source.
struct EncoderSource {
  static constexpr bool kMayBeEmpty = false;
  const InputTile* tiles;
  const Element* qkv;
  Element* outs;
  Work& work;

  DEVICE void find(int item) const {
    if (lane_id() != 0) return;
    InputTile tile = tiles[item / NUM_HEADS];
    work = {tile.start, tile.num_tokens, tile.first, item % NUM_HEADS};
  }
  DEVICE int num_rows() const { return min(work.num_tokens - work.first, kTileM); }
  DEVICE int end() const { return span(num_rows() - 1).end; }
  DEVICE Span span(int row) const {
    int token = work.first + row, num_tokens = work.num_tokens;
    if (WINDOW == 0) return {0, num_tokens};
    return {max(token - WINDOW / 2, 0), min(token + WINDOW / 2 + 1, num_tokens)};
  }
  DEVICE const Element* channels(int which, int token) const {
    return qkv + static_cast<i64>(work.start + token) * (3 * kWidth) + which * kWidth + work.head * HEAD_DIM;
  }
  DEVICE const Element* query(int row) const { return channels(0, work.first + row); }
  DEVICE Element* out(int row) const {
    return outs + static_cast<i64>(work.start + work.first + row) * kWidth + work.head * HEAD_DIM;
  }
  DEVICE void load_keys(Element* to, int key) const { load(to, 1, key); }
  DEVICE void load_values(Element* to, int key) const { load(to, 2, key); }

  DEVICE void load(Element* to, int which, int key) const {
    int thread = fresh_thread(), chunk = thread % kSegmentChunks, num_keys = end() - key;
    const Element* first = channels(which, key) + chunk * CHUNK;
#pragma unroll
    for (int i = 0; i < kTileN * kSegmentChunks / kNumThreads; ++i) {
      int place = i * (kNumThreads / kSegmentChunks) + thread / kSegmentChunks;
      const Element* from = first + (place < num_keys ? place : 0) * (3 * kWidth);
      int at = tile_offset<kTileN>(place, chunk);
#pragma unroll
      for (int segment = 0; segment < NUM_SEGMENTS; ++segment)
        copy_async16(to + at + segment * (kTileN * SEGMENT), from + segment * SEGMENT, place < num_keys);
    }
  }
};

// Tiles of kTileM tokens; the last has what is left.
struct EvenCut {
  DEVICE int num_tiles(int num_tokens) const { return ceil_div(num_tokens, kTileM); }
  DEVICE int first(int, int i) const { return i * kTileM; }
};

// One block. tiles [at most starts[num_inputs] / kTileM + num_inputs]. Once a batch, for all layers.
extern "C" __global__ void __launch_bounds__(1024)
    plan_encoder_attention(const int* starts, int num_inputs, InputTile* tiles, int* num_tiles) {
  wait_for_previous_kernel();
  plan_tiles(starts, num_inputs, EvenCut{}, tiles, num_tiles);
}

// out Element [tokens, NUM_HEADS * HEAD_DIM]. counters: see attend_items.
extern "C" __global__ void __launch_bounds__(kNumThreads, kBlocks)
    encoder_attention(const Element* qkv, const InputTile* tiles, const int* num_tiles, float scale, int* counters,
                      Element* out) {
  SHARED_BYTES(bytes);
  __shared__ Work work;
  wait_for_previous_kernel();
  let_next_kernel_begin();
  attend_items(EncoderSource{tiles, qkv, out, work}, *num_tiles * NUM_HEADS, bytes, scale, 0, counters);
}
