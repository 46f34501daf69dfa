// Which rows move where when holes are closed: the fewest moves, one for each live row at or behind the number of live rows.
//
// A hole's rank among the holes, and a straggler's among the stragglers, follow from one prefix sum of the live rows; equal ranks meet.
#pragma once

#include "scan.cuh"

constexpr int kMaxRows = 4096;
constexpr int kMoveThreads = 512;

struct Moves {
  int holes[kMaxRows / 2];  // finished rows below num_live, ascending
  int stragglers[kMaxRows / 2];  // live rows from num_live on, descending
  int count;
  int num_live;
};

DEVICE int move_source(const Moves& moves, int move) { return moves.stragglers[moves.count - 1 - move]; }
DEVICE int move_destination(const Moves& moves, int move) { return moves.holes[move]; }

// One bit a row from `first` on, set where the row is live.
DEVICE u32 live_mask(const int* finished, int first, int end) {
  u32 live = 0;
  for (int row = first; row < end; row++)
    if (!finished[row]) live |= 1u << (row - first);
  return live;
}

// All of the block's threads call it; `moves` lies in shared memory. finished int [num_rows], at most kMaxRows.
DEVICE void plan_moves(const int* finished, int num_rows, Moves& moves) {
  int each = ceil_div(num_rows, blockDim.x);
  int first = min(static_cast<int>(threadIdx.x) * each, num_rows), end = min(first + each, num_rows);
  u32 live = live_mask(finished, first, end);
  int num_before[1] = {__popc(live)}, totals[1];
  block_scan(num_before, totals);
  int num_live = totals[0], before = num_before[0];  // live rows, in all and before `row`
  for (int row = first; row < end; row++) {
    bool is_live = live >> (row - first) & 1;
    if (row == num_live) moves.count = num_live - before;
    if (row < num_live && !is_live) moves.holes[row - before] = row;
    if (row >= num_live && is_live) moves.stragglers[num_live - 1 - before] = row;
    before += is_live;
  }
  if (threadIdx.x == 0) {
    moves.num_live = num_live;
    if (num_live == num_rows) moves.count = 0;
  }
  __syncthreads();
}

constexpr int kMoveUnroll = 4;
constexpr int kPiece = kMoveThreads * kMoveUnroll;  // words that a block copies at a time

// Words `begin` to `begin + kPiece` of an element of `end` words; a thread's loads are all in flight before its first store.
template <class Word>
DEVICE void copy_piece(Word* to, const Word* from, i64 begin, i64 end) {
  Word words[kMoveUnroll];
  i64 own = begin + threadIdx.x;
  if (begin + kPiece <= end) {
#pragma unroll
    for (int i = 0; i < kMoveUnroll; i++) words[i] = from[own + i * kMoveThreads];
#pragma unroll
    for (int i = 0; i < kMoveUnroll; i++) to[own + i * kMoveThreads] = words[i];
  } else {
    for (i64 word = own; word < end; word += kMoveThreads) to[word] = from[word];
  }
}
