// Closes the holes that finished rows leave, in every row buffer, by one launch: live rows from the tail move into them, all others stay.
//
// Every block finds the same moves from the flags and makes its share of them, so no block waits for another; the last to be done
// lowers the number of rows and clears the flags. Grid: any number of blocks of kMoveThreads.
#include "moves.cuh"
#include "ptx.cuh"

// num_columns arrays with one element a row, in bytes: element `row` of column c is at address + c * column_stride + row * bytes.
struct Buffer {
  u64 address;
  i64 bytes;  // a multiple of 4
  i64 num_columns;
  i64 column_stride;
};

// Elements of some words: a thread moves a word.
template <class Word>
DEVICE void move_small(const Buffer& buffer, const Moves& moves) {
  int num_words = buffer.bytes / sizeof(Word), total = moves.count * static_cast<int>(buffer.num_columns) * num_words;
  for (int i = blockIdx.x * kMoveThreads + threadIdx.x; i < total; i += gridDim.x * kMoveThreads) {
    int word = i % num_words, place = i / num_words;
    int move = place % moves.count, column = place / moves.count;
    u8* base = reinterpret_cast<u8*>(buffer.address) + column * buffer.column_stride;
    const Word* from = reinterpret_cast<const Word*>(base + move_source(moves, move) * buffer.bytes);
    reinterpret_cast<Word*>(base + move_destination(moves, move) * buffer.bytes)[word] = from[word];
  }
}

// Elements of at least a piece: a block moves a piece.
template <class Word>
DEVICE void move_large(const Buffer& buffer, const Moves& moves) {
  i64 num_words = buffer.bytes / sizeof(Word);
  int num_pieces = (num_words + kPiece - 1) / kPiece, total = moves.count * static_cast<int>(buffer.num_columns) * num_pieces;
  for (int i = blockIdx.x; i < total; i += gridDim.x) {
    int piece = i % num_pieces, place = i / num_pieces;
    int move = place % moves.count, column = place / moves.count;
    u8* base = reinterpret_cast<u8*>(buffer.address) + column * buffer.column_stride;
    copy_piece(
        reinterpret_cast<Word*>(base + move_destination(moves, move) * buffer.bytes),
        reinterpret_cast<const Word*>(base + move_source(moves, move) * buffer.bytes), static_cast<i64>(piece) * kPiece, num_words
    );
  }
}

template <class Word>
DEVICE void move_words(const Buffer& buffer, const Moves& moves) {
  if (buffer.bytes < static_cast<i64>(kPiece * sizeof(Word)))
    move_small<Word>(buffer, moves);
  else
    move_large<Word>(buffer, moves);
}

DEVICE void move_buffer(const Buffer& buffer, const Moves& moves) {
  u64 alignment = buffer.address | buffer.bytes | buffer.column_stride;
  if (alignment % 16 == 0)
    move_words<int4>(buffer, moves);
  else
    move_words<int>(buffer, moves);
}

// By one block: the slots move, and row_of_slot follows; the slots of finished rows have no row any more.
DEVICE void move_slots(int* slots, int* row_of_slot, const int* finished, int num_rows, const Moves& moves) {
  for (int row = threadIdx.x; row < num_rows; row += kMoveThreads)
    if (finished[row]) row_of_slot[slots[row]] = -1;
  __syncthreads();
  for (int move = threadIdx.x; move < moves.count; move += kMoveThreads) {
    int slot = slots[move_source(moves, move)], row = move_destination(moves, move);
    slots[row] = slot;
    row_of_slot[slot] = row;
  }
}

// slots int [rows] is no part of the buffers. finished int [rows], 0 or 1; any_finished says whether one of them is 1.
extern "C" __global__ __launch_bounds__(kMoveThreads) void reorder(
    const Buffer* buffers, int num_buffers, int* slots, int* row_of_slot, int* num_rows, int* finished, int* any_finished, int* arrivals
) {
  __shared__ Moves moves;
  wait_for_previous_kernel();
  let_next_kernel_begin();
  int any = *any_finished, num_before = *num_rows;
  if (!any) return;
  plan_moves(finished, num_before, moves);
  for (int i = 0; i < num_buffers && moves.count > 0; i++) move_buffer(buffers[i], moves);
  if (blockIdx.x == 0) move_slots(slots, row_of_slot, finished, num_before, moves);
  if (!arrives_last(arrivals)) return;
  for (int row = threadIdx.x; row < num_before; row += kMoveThreads) finished[row] = 0;
  if (threadIdx.x == 0) {
    *num_rows = moves.num_live;
    *any_finished = 0;
    *arrivals = 0;
  }
}
