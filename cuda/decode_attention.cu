// Attention of the rows that compute one token, over their paged context. A tile of 16 tokens of one (row, KV head) is the unit of
// work; all of them form one line (decode_line.cuh) that is cut into equal ranges, for blocks and within a block for its warps, as in
// Stream-K (arXiv 2301.03598). So any mix of contexts keeps all multiprocessors busy to the end, and one launch serves every batch.
//
// A warp streams its tiles through a ring of its own (decode_ring.cuh), with no barrier among warps, and writes the results of pairs
// that it has to itself. Its first tiles, which decode_tiles.cu has found, come while the kernel before still writes the step's own keys
// and values. Pairs cut between warps are put together by the block in shared memory, pairs cut between blocks by the block that
// finishes last, from float32 parts in device memory.
//
// Defines: HEAD_DIM, NUM_HEADS, NUM_KV_HEADS, BLOCK_SIZE, WINDOW (0: none), SOFTCAP (1: scores are capped), NUM_WARPS, NUM_STAGES,
// MIN_TILES a block; DETERMINISTIC (1: cuts do not depend on other rows) with SPLIT_TILES and MAX_SPLITS.
#include "decode_merge.cuh"

constexpr int kNumEdges = 2;  // pairs that a block shares with others: one it goes on with, one it begins

struct Shared {
  Element* rings;  // [NUM_WARPS] rings
  float* parts;    // [NUM_WARPS][2] parts: of the pair that the warp goes on with, and of the pair that it does not end
  Tile* tiles;     // [NUM_WARPS][NUM_STAGES]
  Tile* cuts;      // [NUM_WARPS][2] pairs that begin in this warp, as far as the block goes, and are merged by it; end < 0: none
  Tile* edges;     // [kNumEdges] pairs whose part lies in device memory; end < 0: none
  u64* barriers;   // [NUM_WARPS][NUM_STAGES]
  int* is_last;    // [kNumEdges]

  explicit DEVICE Shared(u8* bytes)
      : rings(reinterpret_cast<Element*>(bytes)),
        parts(reinterpret_cast<float*>(rings + NUM_WARPS * NUM_STAGES * 2 * kTileElements)),
        tiles(reinterpret_cast<Tile*>(parts + NUM_WARPS * 2 * kPartFloats)),
        cuts(tiles + NUM_WARPS * NUM_STAGES),
        edges(cuts + NUM_WARPS * 2),
        barriers(reinterpret_cast<u64*>(edges + kNumEdges)),
        is_last(reinterpret_cast<int*>(barriers + NUM_WARPS * NUM_STAGES)) {}

  DEVICE Ring ring(int warp) const {
    int stage = warp * NUM_STAGES;
    return {rings + stage * 2 * kTileElements, tiles + stage, barriers + stage};
  }
};

// What outlives a warp's tiles: where results go, and parts on their way there.
struct Results {
  Element* out;     // [tokens, NUM_HEADS, HEAD_DIM]
  float* partials;  // parts of pairs that several blocks share
  int* counters;    // parts that have come, 0 between launches

  // A warp's pair is over, or the warp's range is. A warp merges the pairs that it is the first of its block to have.
  DEVICE void keep(Pair& pair, const Tile& tile, const Range& mine, const Range& block, const Shared& shared) const {
    if (tile.begin >= mine.begin && tile.end <= mine.end) {
      pair.write(out, tile);
      return;
    }
    int place = warp_id() * 2 + (tile.begin < mine.begin ? 0 : 1);
    pair.write_part(shared.parts + place * kPartFloats);
    if (lane_id() == 0 && max(tile.begin, block.begin) >= mine.begin) shared.cuts[place] = tile;
  }

  // Cuts to results, or to this block's parts of pairs that it shares with other blocks. Each warp its own; a pair that is the only one
  // of its block, all warps together.
  DEVICE void merge_cuts(const Rounds& rounds, const Range& block, const Shared& shared) const {
    Split warps(block.end - block.begin, NUM_WARPS);
    int begins = shared.cuts[0].end < 0 ? 1 : 0;
    Tile first = shared.cuts[begins];
    bool is_only = first.end >= block.end && first.begin <= block.begin;
    Team team = {lane_id(), WARP};
    if (is_only) team = {static_cast<int>(threadIdx.x), NUM_WARPS * WARP};
#pragma unroll 1
    for (int i = is_only ? begins : 0; i < (is_only ? begins + 1 : 2); ++i) {
      int warp = is_only ? 0 : warp_id();
      Tile pair = shared.cuts[warp * 2 + i];
      if (pair.end < 0) continue;
      int last = warps.owner(min(pair.end, block.end) - 1 - block.begin);
      Parts parts = {2 * warp, i, 2, last - warp + 1};
      if (pair.begin >= block.begin && pair.end <= block.end) {
        merge_to_result<kShared>(out, pair, shared.parts, parts, team);
        continue;
      }
      float* target = partials + static_cast<i64>(rounds.part(pair, block)) * kPartFloats;
      merge_to_part(target, shared.parts, parts, team);
      if (team.thread == 0) shared.edges[pair.begin < block.begin ? 0 : 1] = pair;
    }
  }

  // After a __syncthreads: the block that brings a pair's last part writes the pair's result. All threads.
  DEVICE void merge_edges(const Rounds& rounds, const Shared& shared) const {
    if (shared.edges[0].end < 0 && shared.edges[1].end < 0) return;
    int thread = static_cast<int>(threadIdx.x);
    if (thread < kNumEdges && shared.edges[thread].end >= 0) {
      Tile pair = shared.edges[thread];
      int* counter = counters + rounds.counter(pair);
      __threadfence();  // what the block has written, before the count of it
      bool is_last = atomicAdd(counter, 1) == rounds.parts(pair).count - 1;
      if (is_last) {
        __threadfence();  // and the other blocks' parts after it
        *counter = 0;
      }
      shared.is_last[thread] = is_last;
    }
    __syncthreads();
#pragma unroll 1
    for (int i = 0; i < kNumEdges; ++i) {
      Tile pair = shared.edges[i];
      if (pair.end < 0 || !shared.is_last[i]) continue;
      merge_to_result<kInDevice>(out, pair, partials, rounds.parts(pair), {thread, NUM_WARPS * WARP});
    }
    __syncthreads();
    if (thread < kNumEdges) shared.edges[thread].end = -1;
  }
};

// grid: any number of blocks, as many as multiprocessors; block NUM_WARPS warps; shared bytes: Shared's, decode_attention.py.
extern "C" __global__ void __launch_bounds__(NUM_WARPS* WARP, 1) decode_attention(
    const Element* qkv, const Element* keys, const Element* values, const int4* counts, int bucket_rows, const int* starts,
    const int* query_starts, const int* context_lens, const int* row_slots, const int* block_tables, int max_blocks,
    const Tile* first_tiles, float scale, float softcap, Element* out, float* partials, int* counters) {
  SHARED_BYTES(bytes);
  Shared shared(bytes);
  Ring ring = shared.ring(warp_id());
  Rows rows = {bucket_rows, starts, query_starts, context_lens, row_slots, block_tables, max_blocks, 0};
  Tile first = first_tiles[blockIdx.x * (NUM_WARPS * WARP) + threadIdx.x];
  int4 sizes = *counts;  // rows, tokens, decode tiles, prompt tiles
  rows.look();
  let_next_kernel_begin();
  ring.init();
  if (threadIdx.x < kNumEdges) shared.edges[threadIdx.x].end = -1;
  Rounds rounds(rows, sizes.x, sizes.z);
  Loader loader = {rounds, rows, ring, keys, values};
  Results results = {out, partials, counters};
  loader.begin(first);
  loader.fill(sizes.w == 0);
  wait_for_previous_kernel();  // the batch is older than that: several kernels have ended since it was written
  if (rounds.count == 0) return;
  __syncwarp();
  int stage = 0;
  u32 parity = 0;
#pragma unroll 1
  for (int round = 0; round < rounds.count; ++round) {
    Range block = rounds.range(round), mine = loader.range(round);
    if (block.begin == block.end) continue;
    if (lane_id() < 2) shared.cuts[warp_id() * 2 + lane_id()].end = -1;
    __syncwarp();
    Pair pair;
#pragma unroll 1
    for (int place = mine.begin; place < mine.end; ++place) {
      Tile tile = ring.tiles[stage];
      if (place == mine.begin || place == tile.begin) pair.begin(qkv, tile);
      ring.wait(stage, parity);
      pair.add(tile, ring.stage(stage), scale, softcap);
      __syncwarp();
      loader.load(stage);
      if (++stage == NUM_STAGES) stage = 0, parity ^= 1;
      if (place + 1 == mine.end || place + 1 == tile.end) results.keep(pair, tile, mine, block, shared);
    }
    __syncthreads();
    results.merge_cuts(rounds, block, shared);
    __syncthreads();
    results.merge_edges(rounds, shared);
  }
}
