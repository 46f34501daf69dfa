// Disentangled attention of packed inputs (DeBERTa, arXiv 2006.03654): beside its product with the key, a query meets a row of positions
// that the distance of the two chooses, and so does the key. Nothing is padded, and no matrix of distances exists anywhere: as much of it
// as two tiles span is multiplied beside their scores. The rest is plain attention.
#define BLOCK_SIZE 16  // cache.cuh wants one; nothing is paged here
#define WINDOW 0
#define SOFTCAP 0
#include "attention_inputs.cuh"
#include "relative_scores.cuh"

constexpr int kWidth = NUM_HEADS * HEAD_DIM;

// What a block works on: a tile of kTileM queries, one head.
struct Work {
  InputTile tile;
  int head;
};

// The attention Source. The work lies in shared memory.
struct RelativeSource {
  const Element* qkv;  // [tokens, 3 * kWidth]
  Element* outs;       // [tokens, kWidth]
  const Work& work;

  DEVICE int num_rows() const { return work.tile.num_rows; }
  DEVICE int end() const { return work.tile.num_tokens; }
  // Whether there are rows from this one on. It is asked before each product: between branches the compiler holds no registers for the
  // product after it.
  DEVICE bool has_rows(int first) const { return uniform(first < num_rows()); }
  DEVICE Span span(int) const { return {0, work.tile.num_tokens}; }
  DEVICE const Element* channels(int which, int token) const {
    return qkv + static_cast<i64>(work.tile.start + token) * (3 * kWidth) + which * kWidth + work.head * HEAD_DIM;
  }
  DEVICE const Element* query(int row) const { return channels(0, work.tile.first + row); }
  DEVICE Element* out(int row) const {
    return outs + static_cast<i64>(work.tile.start + work.tile.first + row) * kWidth + work.head * HEAD_DIM;
  }

  // The keys of a step, which: 1, or its values, 2. Zeros behind the input's last.
  DEVICE void load(Element* to, int which, int key) const {
    int thread = fresh_thread(), chunk = thread % kRowChunks, num_keys = end() - key;
    const Element* first = channels(which, key) + chunk * CHUNK;
#pragma unroll
    for (int i = 0; i < kStepKeys / kPassRows; ++i) {
      int place = i * kPassRows + thread / kRowChunks;
      const Element* from = first + (place < num_keys ? place : 0) * (3 * kWidth);
      copy_async16(to + tile_offset<kStepKeys>(place, chunk), from, place < num_keys);
    }
  }

  template <int kRows>
  DEVICE RowPlaces<kRows> rows_from(const Positions& positions, int offset) const {
    return RowPlaces<kRows>(positions, offset, work.tile.first, num_rows(), work.tile.num_tokens);
  }
};

// By all threads of the block: begins to load the tile and its first keys. The shared memory has to be free.
DEVICE void begin_tile(const RelativeSource& source, const Positions& positions, const RelativeShared& shared) {
  load_queries(source, shared.tiles, warp_id() * kWarpRows);
  source.load(shared.keys_at(0), 1, 0);
  source.rows_from<kStepRows>(positions, 0).load(shared, positions, source.work.head);
  copy_async_commit();
}

// Begins to load the values of the step from `key` on, then the next step's keys and the rows of the offsets that those add.
DEVICE void begin_step(const RelativeSource& source, const Positions& positions, const RelativeShared& shared, int key) {
  int next = key + kStepKeys;
  auto places = source.rows_from<kStepKeys>(positions, key + kStepRows);
  copy_async_wait<0>();
  __syncthreads();  // this step's keys are there; values, keys and rows before them, and the queries, are read by nobody any more
  source.load(shared.values_at(key), 2, key);
  copy_async_commit();
  if (next < source.end()) {
    source.load(shared.keys_at(next), 1, next);
    places.load(shared, positions, source.work.head);
  }
  copy_async_commit();
}

// A warp's scores of the tile of keys from `key` on.
DEVICE void score(const RelativeSource& source, Scores& scores, const Queries& queries, const RelativeShared& shared, int first_row,
                  int key) {
  int first = key + kTileM - kWarpRows - first_row;
  if (!CONTENT_TO_POSITION) clear(scores);
  if (CONTENT_TO_POSITION && source.has_rows(first_row)) score_positions(scores, queries, shared.key_ring, first);
  if (source.has_rows(first_row)) score_keys(scores, queries, shared.keys_at(key), shared.query_ring, first);
}

// From a warp's scores of a tile of keys to those keys' share of the result.
DEVICE void weigh(const RelativeSource& source, AttentionRows& rows, Scores& scores, const RelativeShared& shared, int first_row,
                  int key, float scale) {
  if (key + kTileN > source.end()) mask_scores(scores, source, first_row, key);
  soften(scores, rows, scale * kLog2E);
  add_values(rows, scores, shared.values_at(key));
}

// From the queries to the tile's result. A step's values come while its first scores are computed, the next step's keys and positions
// until that begins.
DEVICE void attend_tile(const RelativeSource& source, const Positions& positions, const RelativeShared& shared, float scale) {
  int first_row = uniform(warp_id()) * kWarpRows;
  Queries queries;
  AttentionRows rows;
  copy_async_wait<0>();
  __syncthreads();
  queries.load(shared.tiles.queries, first_row);
  rows.clear();
  int next = 0;
  do {
    int key = uniform(next);  // as if it were no induction variable, or registers go to what can be computed from it
    next = key + kTileN;
    bool is_step = key % kStepKeys == 0;
    if (is_step) begin_step(source, positions, shared, key);
    Scores scores;
    score(source, scores, queries, shared, first_row, key);
    if (is_step) {
      copy_async_wait<1>();
      __syncthreads();  // the values are there
    }
    if (source.has_rows(first_row)) weigh(source, rows, scores, shared, first_row, key, scale);
  } while (next < source.end());
  __syncthreads();  // the results leave from where the values are
  if (source.has_rows(first_row)) store_rows(source, rows, shared.tiles, first_row);
}

// Tiles of kTileM tokens; the last has what is left.
struct EvenCut {
  DEVICE int num_tiles(int num_tokens) const { return ceil_div(num_tokens, kTileM); }
  DEVICE int first(int, int i) const { return i * kTileM; }
};

// One block. tiles [at most starts[num_inputs] / kTileM + num_inputs]. Once a batch, for all layers.
extern "C" __global__ void __launch_bounds__(1024)
    plan_disentangled_attention(const int* starts, int num_inputs, InputTile* tiles, int* num_tiles) {
  wait_for_previous_kernel();
  plan_tiles(starts, num_inputs, EvenCut{}, tiles, num_tiles);
}

// qkv Element [tokens, 3 * NUM_HEADS * HEAD_DIM], out Element [tokens, NUM_HEADS * HEAD_DIM]. places: see Positions. Blocks stay and take
// one tile and head after the other. counters int32 [2], zero before and after: items taken behind the first of each block, blocks that
// have ended.
extern "C" __global__ void __launch_bounds__(kNumThreads, 2)
    disentangled_attention(const Element* qkv, const Element* keys, const Element* queries, const int* places, int middle,
                           const InputTile* tiles, const int* num_tiles, float scale, int* counters, Element* out) {
  SHARED_BYTES(bytes);
  __shared__ Work work;
  __shared__ int next_item;
  wait_for_previous_kernel();
  let_next_kernel_begin();
  RelativeShared shared(bytes);
  RelativeSource source{qkv, out, work};
  Positions positions{keys, queries, places, middle};
  int num_items = *num_tiles * NUM_HEADS;
  for (int item = blockIdx.x; item < num_items;) {
    if (threadIdx.x == 0) work = {tiles[item / NUM_HEADS], item % NUM_HEADS};
    __syncthreads();
    begin_tile(source, positions, shared);
    if (threadIdx.x == 0) next_item = gridDim.x + atomicAdd(counters, 1);
    attend_tile(source, positions, shared, scale);
    __syncthreads();
    item = uniform(next_item);
  }
  if (arrives_last(counters + 1) && threadIdx.x == 0) counters[0] = counters[1] = 0;
}
