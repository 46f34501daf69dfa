// Attention of one tile of queries over its keys by mma.m16n8k16 (sm_80 and up): online softmax in registers, in base 2, as in
// FlashAttention-2 (arXiv 2307.08691). Where queries, keys and values come from, and which keys a row sees, is a Source's business.
//
// A Source has
//   int num_rows()                 rows of the tile that exist, from the first on; 1 to kTileM
//   int end()                      keys before this one may be seen, at least one
//   Span span(int row)             the keys that a row sees; neither end falls from one row to the next
//   const Element* query(int row)  HEAD_DIM elements; Element* out(int row) likewise
//   void load_keys(Element* to, int key)     the tile from `key` on, zeros from end() on; load_values likewise
//   void find(int item)            by one warp: what the others are to say from now on; it lies in shared memory, for registers are scarce
//   kMayBeEmpty                    whether num_rows() may be 0 or less
// WINDOW > 0 says that spans may begin after key 0, SOFTCAP that scores become softcap * tanh(score / softcap).
#pragma once

#include "attention_mma_products.cuh"
#include "attention_mma_weights.cuh"
#include "scan.cuh"

struct Span {
  int begin, end;
};

// Keys from `key` on that a row does not see get no weight.
template <typename Source>
DEVICE void mask_scores(Scores& scores, const Source& source, int first_row, int key) {
  int lane = lane_id(), first = key + lane % 4 * 2;
#pragma unroll
  for (int i = 0; i < 2 * kAtoms; ++i) {
    Span span = source.span(min(first_row + i * 8 + lane / 4, source.num_rows() - 1));
#pragma unroll
    for (int j = 0; j < kScoreTiles * 2; ++j) {
      int column = first + j / 2 * 8 + j % 2;
      float& score = scores[i / 2][j / 2][i % 2 * 2 + j % 2];
      if (column >= span.end || (WINDOW > 0 && column < span.begin)) score = never();
    }
  }
}

// The warp's queries to shared memory, asynchronously; zeros for rows that do not exist.
template <typename Source>
DEVICE void load_queries(const Source& source, const AttentionShared& shared, int first_row) {
#pragma unroll 2
  for (int i = 0; i < kWarpRows * kRowChunks / WARP; ++i) {
    int place = i * WARP + lane_id(), row = first_row + place / kRowChunks, chunk = place % kRowChunks;
    bool exists = row < source.num_rows();
    const Element* query = source.query(exists ? row : 0) + chunk * CHUNK;
    copy_async16(shared.queries + tile_offset<kTileM>(row, chunk), query, exists);
  }
}

// The warp's rows, divided by their sums, out through the shared memory of its queries.
template <typename Source>
DEVICE void store_rows(const Source& source, AttentionRows& rows, const AttentionShared& shared, int first_row) {
  int lane = lane_id(), base = tile_offset<kTileM>(first_row + lane / 4, 0) + lane % 4 * 2;
#pragma unroll
  for (int i = 0; i < 2 * kAtoms; ++i) {
    int atom = i / 2, half = i % 2;
    float sum = rows.sum[atom][half];
    sum += __shfl_xor_sync(~0u, sum, 1);
    sum += __shfl_xor_sync(~0u, sum, 2);
    float factor = __fdividef(1, sum);
#pragma unroll
    for (int n = 0; n < kOutTiles; ++n) {
      const float* pair = rows.out[atom][n] + 2 * half;
      u32* to = reinterpret_cast<u32*>(shared.queries + tile_step<kTileM>(base, i * 8, n));
      *to = pack(pair[0] * factor, pair[1] * factor);
    }
  }
  __syncwarp();
#pragma unroll 2
  for (int i = 0; i < kWarpRows * kRowChunks / WARP; ++i) {
    int place = i * WARP + lane, row = first_row + place / kRowChunks, chunk = place % kRowChunks;
    const Element* from = shared.queries + tile_offset<kTileM>(row, chunk);
    if (row < source.num_rows())
      *reinterpret_cast<uint4*>(source.out(row) + chunk * CHUNK) = *reinterpret_cast<const uint4*>(from);
  }
  __syncwarp();  // before the next tile's queries come here
}

// Whether any of the warp's rows sees one of the keys from `key` on, and whether one of them may not see all of them.
struct WarpView {
  bool sees, cut;

  template <typename Source>
  DEVICE WarpView(const Source& source, int first_row, int key) {
    int last_row = min(first_row + kWarpRows, source.num_rows()) - 1;
    Span first = source.span(first_row), last = source.span(last_row);
    sees = uniform(first_row <= last_row && key < last.end && (WINDOW == 0 || key + kTileN > first.begin));
    cut = uniform(key + kTileN > first.end || (WINDOW > 0 && key < last.begin));
  }
};

// The tile of keys that is looked at first.
template <typename Source>
DEVICE int first_key(const Source& source) {
  return WINDOW > 0 ? uniform(source.span(0).begin) / kTileN * kTileN : 0;
}

// By all threads of the block: begins to load the tile. The shared memory has to be free; then call attend.
template <typename Source>
DEVICE void begin_tile(const Source& source, const AttentionShared& shared) {
  load_queries(source, shared, warp_id() * kWarpRows);
  source.load_keys(shared.keys_at(first_key(source)), first_key(source));
  copy_async_commit();
}

// From the queries to the tile's result. The values come while the scores are computed, the next keys while the softmax and the
// values' products are.
template <typename Source>
DEVICE void attend(const Source& source, const AttentionShared& shared, float scale, float softcap) {
  int first_row = uniform(warp_id()) * kWarpRows, end = uniform(source.end());
  AttentionRows rows;
  rows.clear();
  int next = first_key(source);
  do {
    int key = uniform(next);  // as if it were no induction variable, or registers go to what can be computed from it
    next = key + kTileN;
    copy_async_wait<0>();
    __syncthreads();  // these keys are there; values and keys before them are read by nobody any more
    source.load_values(shared.values, key);
    copy_async_commit();
    if (next < end) source.load_keys(shared.keys_at(next), next);
    copy_async_commit();
    WarpView view(source, first_row, key);
    Scores scores;
    if (view.sees) score_keys(scores, shared.queries, shared.keys_at(key), first_row);
    copy_async_wait<1>();
    __syncthreads();  // the values are there
    if (!view.sees) continue;
    if (SOFTCAP) cap_scores(scores, scale, softcap);
    if (view.cut) mask_scores(scores, source, first_row, key);
    soften(scores, rows, (SOFTCAP ? 1 : scale) * kLog2E);
    add_values(rows, scores, shared.values);
  } while (next < end);
  store_rows(source, rows, shared, first_row);
}

// Blocks stay and take one item after the other; the heaviest should be the first. counters int32 [2], zero before and after: items
// taken behind the first of each block, blocks that have ended.
template <typename Source>
DEVICE void attend_items(const Source& source, int num_items, u8* bytes, float scale, float softcap, int* counters) {
  __shared__ int next_item;
  AttentionShared shared(bytes);
  for (int item = blockIdx.x; item < num_items;) {
    if (warp_id() == 0) source.find(item);
    __syncthreads();
    bool any = !Source::kMayBeEmpty || source.num_rows() > 0;
    if (any) begin_tile(source, shared);
    if (threadIdx.x == 0) next_item = gridDim.x + atomicAdd(counters, 1);
    if (any) attend(source, shared, scale, softcap);
    __syncthreads();
    item = uniform(next_item);
  }
  if (arrives_last(counters + 1) && threadIdx.x == 0) counters[0] = counters[1] = 0;
}
