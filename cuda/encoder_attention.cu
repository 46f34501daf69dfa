// Attention of packed inputs whose tokens see each other, as an encoder's do: qkv Element [tokens, 3 * NUM_HEADS * HEAD_DIM], no
// padding, no cache. Input i's tokens are starts[i] to starts[i + 1]. With WINDOW > 0 a token sees those at most WINDOW / 2 away.
#define BLOCK_SIZE 16  // cache.cuh wants one; nothing is paged here
#include "attention_mma.cuh"

constexpr int kWidth = NUM_HEADS * HEAD_DIM;
constexpr int kBuckets = 128;
#if __CUDA_ARCH__ >= 1000
constexpr int kBlocks = 2;  // a multiprocessor: three would leave this compiler too few registers
#else
constexpr int kBlocks = HEAD_DIM <= 64 ? 3 : 2;
#endif

// Some tokens of one input. 16 bytes.
struct InputTile {
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
  InputTile& tile;

  DEVICE void find(int item) const {
    if (lane_id() != 0) return;
    tile = tiles[item / NUM_HEADS];
    tile.head = item % NUM_HEADS;
  }
  DEVICE int num_rows() const { return min(tile.num_tokens - tile.first, kTileM); }
  DEVICE int end() const { return span(num_rows() - 1).end; }
  DEVICE Span span(int row) const {
    int token = tile.first + row;
    if (WINDOW == 0) return {0, tile.num_tokens};
    return {max(token - WINDOW / 2, 0), min(token + WINDOW / 2 + 1, tile.num_tokens)};
  }
  DEVICE const Element* channels(int which, int token) const {
    return qkv + static_cast<i64>(tile.start + token) * (3 * kWidth) + which * kWidth + tile.head * HEAD_DIM;
  }
  DEVICE const Element* query(int row) const { return channels(0, tile.first + row); }
  DEVICE Element* out(int row) const {
    return outs + static_cast<i64>(tile.start + tile.first + row) * kWidth + tile.head * HEAD_DIM;
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

// Which bucket an input's tiles go to: those that take longest are in the first.
DEVICE int bucket_of(int num_tokens) { return kBuckets - min(ceil_div(num_tokens, kTileN), kBuckets); }

// One block. The inputs' tiles of kTileM tokens, those of long inputs before those of short ones: tiles [at most starts[num_inputs] /
// kTileM + num_inputs]. Once a batch, for all layers.
extern "C" __global__ void __launch_bounds__(1024)
    plan_encoder_attention(const int* starts, int num_inputs, InputTile* tiles, int* num_tiles) {
  __shared__ int places[kBuckets];
  wait_for_previous_kernel();
  if (threadIdx.x < kBuckets) places[threadIdx.x] = 0;
  __syncthreads();
  for (int i = threadIdx.x; i < num_inputs; i += blockDim.x) {
    int num_tokens = starts[i + 1] - starts[i];
    if (num_tokens > 0) atomicAdd(&places[bucket_of(num_tokens)], ceil_div(num_tokens, kTileM));
  }
  __syncthreads();
  int place[1] = {threadIdx.x < kBuckets ? places[threadIdx.x] : 0}, total[1];
  block_scan(place, total);
  if (threadIdx.x < kBuckets) places[threadIdx.x] = place[0];
  if (threadIdx.x == 0) *num_tiles = total[0];
  __syncthreads();
  for (int i = threadIdx.x; i < num_inputs; i += blockDim.x) {
    int start = starts[i], num_tokens = starts[i + 1] - start;
    if (num_tokens <= 0) continue;
    int at = atomicAdd(&places[bucket_of(num_tokens)], ceil_div(num_tokens, kTileM));
    for (int first = 0; first < num_tokens; first += kTileM) tiles[at++] = {start, num_tokens, first, 0};
  }
}

// out Element [tokens, NUM_HEADS * HEAD_DIM]. counters: see attend_items.
extern "C" __global__ void __launch_bounds__(kNumThreads, kBlocks)
    encoder_attention(const Element* qkv, const InputTile* tiles, const int* num_tiles, float scale, int* counters,
                      Element* out) {
  SHARED_BYTES(bytes);
  __shared__ InputTile tile;
  wait_for_previous_kernel();
  let_next_kernel_begin();
  attend_items(EncoderSource{tiles, qkv, out, tile}, *num_tiles * NUM_HEADS, bytes, scale, 0, counters);
}
