// Where disentangled attention keeps what a tile of queries needs: its keys and values, and the positions' rows by distance.
//
// Key j and row r of the tile meet at the offset j + kTileM - 1 - r. The keys of a step, from `key` on, need the offsets from `key` to
// key + kStepRows - 1: rings hold those and what the next step adds, an offset in the slot of its remainder.
#pragma once

#include "attention_mma.cuh"

constexpr int kStepKeys = 2 * kTileN;           // loaded at once
constexpr int kStepRows = kTileM + kStepKeys;   // offsets of a step, one of which nobody needs
constexpr int kRing = kStepRows + kStepKeys;
constexpr int kPassRows = kNumThreads / kRowChunks;  // rows that all threads load at once
static_assert((kRing & (kRing - 1)) == 0, "the slot of an offset is some of its bits");
static_assert(kTileM == 2 * kStepKeys, "the queries lie where the values and a step's keys will");
static_assert(NUM_SEGMENTS == 1 && kAtoms == 2, "wider heads leave no room for the rings");
static_assert(kStepKeys % kPassRows == 0, "threads share rows evenly");

// In this order: the keys of two steps, the values of one, the rings. The queries are moved to registers before anything else comes
// where they lie, and the results leave from there.
struct RelativeShared {
  AttentionShared tiles;
  Element* key_ring;    // [kRing][HEAD_DIM] of the positions that meet the queries
  Element* query_ring;  // likewise of those that meet the keys

  explicit DEVICE RelativeShared(u8* bytes) : tiles(bytes) {
    tiles.keys = reinterpret_cast<Element*>(bytes);
    tiles.queries = tiles.keys + kStepKeys * HEAD_DIM;
    tiles.values = tiles.queries + kStepKeys * HEAD_DIM;
    key_ring = tiles.values + kStepKeys * HEAD_DIM;
    query_ring = key_ring + (CONTENT_TO_POSITION ? kRing * HEAD_DIM : 0);
  }
  // Where the tile from `key` on lies.
  DEVICE Element* keys_at(int key) const { return tiles.keys + key % (2 * kStepKeys) * HEAD_DIM; }
  DEVICE Element* values_at(int key) const { return tiles.values + key % kStepKeys * HEAD_DIM; }
};

// The warp's queries as A fragments, for the whole tile.
struct Queries {
  u32 at[kAtoms][HEAD_DIM / 16][4];

  DEVICE void load(const Element* queries, int first_row) {
    int base = tile_offset<kTileM>(first_row + lane_id() % 16, lane_id() / 16);
#pragma unroll
    for (int i = 0; i < kAtoms * HEAD_DIM / 16; ++i) {
      int atom = i % kAtoms, k = i / kAtoms;
      load_matrix_x4(at[atom][k], queries + tile_step<kTileM>(base, atom * 16, 2 * k));
    }
  }
};

// Rows of one layer's positions, by distance. Device memory.
struct Positions {
  const Element *keys, *queries;  // [2 * span, NUM_HEADS * HEAD_DIM]; null where the model has none
  const int* places;              // [2 * middle + 1]: the row of a distance, 0 in the middle
  int middle;
};

// Some offsets' places in the tables, for the rows that this thread loads of them; offsets that no score needs have none.
template <int kRows>
struct RowPlaces {
  static constexpr int kCount = kRows / kPassRows;
  int first, places[kCount];

  // From the offset `first` on. The tile's queries are num_rows from `query` on.
  DEVICE RowPlaces(const Positions& positions, int first, int query, int num_rows, int num_tokens) : first(first) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      int offset = first + i * kPassRows + fresh_thread() / kRowChunks;
      bool needed = offset >= kTileM - num_rows && offset < num_tokens + kTileM - 1;
      places[i] = needed ? positions.places[positions.middle + query + kTileM - 1 - offset] : -1;
    }
  }

  // table: of the head.
  DEVICE void load(Element* ring, const Element* table) const {
    int thread = fresh_thread(), chunk = thread % kRowChunks;
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      int slot = (first + i * kPassRows + thread / kRowChunks) & (kRing - 1);
      const Element* from = table + static_cast<i64>(max(places[i], 0)) * (NUM_HEADS * HEAD_DIM) + chunk * CHUNK;
      copy_async16(ring + tile_offset<kRing>(slot, chunk), from, places[i] >= 0);
    }
  }

  DEVICE void load(const RelativeShared& shared, const Positions& positions, int head) const {
    if (CONTENT_TO_POSITION) load(shared.key_ring, positions.keys + head * HEAD_DIM);
    if (POSITION_TO_CONTENT) load(shared.query_ring, positions.queries + head * HEAD_DIM);
  }
};

// 16 rows of a ring from the offset `first` on, a multiple of 16, for ldmatrix; base: of the lane's place in the first 16 rows.
DEVICE const Element* ring_rows(const Element* ring, int base, int first, int chunk) {
  return ring + tile_step<kRing>(base + (first & (kRing - 1)) * SEGMENT, 0, chunk);
}
