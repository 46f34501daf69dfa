// Closes the holes that finished rows leave, in every row buffer, by one launch: live rows from the tail move into them, all others stay.
//
// Every block finds the same moves from the flags and makes its share of them, so no block waits for another. A block that has read the
// flags says so at once; the last to say it lowers the number of rows and clears the flags, while the others still move. Grid: any
// number of blocks of kMoveThreads. Floor of a few small rows: a launch, and three trips to the second cache one after the other, of
// 0.6 us each: is there anything to do, the flags, then the rows and the count of blocks at once. Loops of a turn or two are not
// unrolled: the kernel is fetched anew in every step.
#include "moves.cuh"
#include "ptx.cuh"

constexpr int kMaxBuffers = WARP;

// num_columns arrays with one element a row, in bytes: element `row` of column c is at address + c * column_stride + row * bytes.
struct Buffer {
  u64 address;
  i64 bytes;  // a multiple of 4
  i64 num_columns;
  i64 column_stride;
};

// What a launch moves, and how much of it is small: words of a row in the buffers up to each, over all their columns.
struct Buffers {
  Buffer all[kMaxBuffers];
  int ends[kMaxBuffers];
};

DEVICE bool has_wide_words(const Buffer& buffer) { return (buffer.address | buffer.bytes | buffer.column_stride) % 16 == 0; }
DEVICE i64 count_words(const Buffer& buffer) { return buffer.bytes / (has_wide_words(buffer) ? sizeof(int4) : sizeof(int)); }
DEVICE bool is_small(const Buffer& buffer) { return count_words(buffer) < kPiece; }

// By the first warp, a lane a buffer.
DEVICE void measure(const Buffer& own, int num_buffers, Buffers& buffers) {
  bool is_counted = lane_id() < num_buffers && is_small(own);
  int num_words = is_counted ? static_cast<int>(count_words(own) * own.num_columns) : 0;
  buffers.all[lane_id()] = own;
  buffers.ends[lane_id()] = warp_inclusive_sum(num_words);
}

template <class Word>
DEVICE void move_word(u8* column, i64 bytes, int source, int destination, int word) {
  const Word* from = reinterpret_cast<const Word*>(column + source * bytes);
  reinterpret_cast<Word*>(column + destination * bytes)[word] = from[word];
}

// All buffers with short elements at once, a thread a word: no thread waits for one buffer's words before it asks for the next one's.
DEVICE void move_small(const Buffers& buffers, int num_buffers, const Moves& moves) {
  int total = buffers.ends[num_buffers - 1] * moves.count;
#pragma unroll 1
  for (int i = blockIdx.x * kMoveThreads + threadIdx.x; i < total; i += gridDim.x * kMoveThreads) {
    int b = 0;
#pragma unroll 1
    while (i >= buffers.ends[b] * moves.count) b++;
    const Buffer& buffer = buffers.all[b];
    int num_words = static_cast<int>(count_words(buffer)), own = b > 0 ? i - buffers.ends[b - 1] * moves.count : i;
    int word = own % num_words, place = own / num_words;
    int move = place % moves.count, column = place / moves.count;
    u8* base = reinterpret_cast<u8*>(buffer.address) + column * buffer.column_stride;
    int source = move_source(moves, move), destination = move_destination(moves, move);
    if (has_wide_words(buffer))
      move_word<int4>(base, buffer.bytes, source, destination, word);
    else
      move_word<int>(base, buffer.bytes, source, destination, word);
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

DEVICE void move_buffers(const Buffers& buffers, int num_buffers, const Moves& moves) {
  if (moves.count == 0) return;
  move_small(buffers, num_buffers, moves);
#pragma unroll 1
  for (int i = 0; i < num_buffers; i++) {
    const Buffer& buffer = buffers.all[i];
    if (is_small(buffer)) continue;
    if (has_wide_words(buffer))
      move_large<int4>(buffer, moves);
    else
      move_large<int>(buffer, moves);
  }
}

// By one block: the slots move, and row_of_slot follows; the slots of finished rows have no row any more. The flags may be cleared by
// now, but these are the rows that moves go to and those behind the live ones, the moving ones among them until the barrier.
DEVICE void move_slots(int* slots, int* row_of_slot, int num_rows, const Moves& moves) {
  int num_tail = num_rows - moves.num_live;
#pragma unroll 1
  for (int i = threadIdx.x; i < moves.count + num_tail; i += kMoveThreads) {
    int row = i < moves.count ? move_destination(moves, i) : moves.num_live + i - moves.count;
    row_of_slot[slots[row]] = -1;
  }
  __syncthreads();
#pragma unroll 1
  for (int move = threadIdx.x; move < moves.count; move += kMoveThreads) {
    int slot = slots[move_source(moves, move)], row = move_destination(moves, move);
    slots[row] = slot;
    row_of_slot[slot] = row;
  }
}

// By the first warp of the block that read the flags last.
DEVICE void clear(const Moves& moves, int num_before, int* num_rows, int* finished, int* any_finished, int* arrivals) {
#pragma unroll 1
  for (int row = lane_id(); row < num_before; row += WARP) finished[row] = 0;
  if (lane_id() == 0) {
    *num_rows = moves.num_live;
    *any_finished = 0;
    *arrivals = 0;
  }
}

// slots int [rows] is no part of the buffers, of which there are 1 to kMaxBuffers, and which no kernel writes. finished int [rows], 0 or
// 1; any_finished says whether one of them is 1.
extern "C" __global__ __launch_bounds__(kMoveThreads) void reorder(
    const Buffer* buffers, int num_buffers, int* slots, int* row_of_slot, int* num_rows, int* finished, int* any_finished, int* arrivals
) {
  __shared__ Moves moves;
  __shared__ Buffers shared;
  Buffer own = {};
  if (threadIdx.x < num_buffers) own = buffers[threadIdx.x];
  wait_for_previous_kernel();
  let_next_kernel_begin();
  int any = *any_finished, num_before = *num_rows, place = 0;
  if (any * num_before == 0) return;  // a product, so that both are on their way at once
  if (warp_id() == 0) measure(own, num_buffers, shared);
  plan_moves(finished, num_before, moves);
  // Nobody reads the flags or the number of rows from here on. All of this block's threads have used what they read of them.
  if (threadIdx.x == 0) place = atomicAdd(arrivals, 1);
  if (blockIdx.x == gridDim.x - 1) move_slots(slots, row_of_slot, num_before, moves);
  move_buffers(shared, num_buffers, moves);
  if (warp_id() == 0 && __shfl_sync(kAllLanes, place, 0) == static_cast<int>(gridDim.x) - 1)
    clear(moves, num_before, num_rows, finished, any_finished, arrivals);
}
