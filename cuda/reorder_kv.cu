// Closes the holes of finished rows in a cache of keys and values that is not paged: each row's tokens lie back to back in a range of
// its own, in every buffer (one of keys and one of values a layer), and a moved row takes with it as many tokens as it has.
//
// The row buffers are reordered after this, not before: it reads the flags and the lengths by their old rows. Grid: any number of
// blocks of kMoveThreads. Floor: twice the moved bytes at the speed of copies.
#include "moves.cuh"
#include "ptx.cuh"

// starts[i]: pieces of the moves before i; the return value is those of all. All threads call it.
DEVICE int count_pieces(const int* lens, i64 token_words, const Moves& moves, int* starts) {
  int each = ceil_div(moves.count, kMoveThreads);
  int first = threadIdx.x * each, end = min(first + each, moves.count);
  int num_before[1] = {0}, totals[1];
  for (int move = first; move < end; move++) {
    i64 num_words = lens[move_source(moves, move)] * token_words;
    starts[move] = (num_words + kPiece - 1) / kPiece;
    num_before[0] += starts[move];
  }
  block_scan(num_before, totals);
  for (int move = first, before = num_before[0]; move < end; move++) {
    int own = starts[move];
    starts[move] = before;
    before += own;
  }
  __syncthreads();
  return totals[0];
}

// The last of the moves that begin at or before the piece.
DEVICE int find_move(const int* starts, int num_moves, int piece) {
  int low = 0, high = num_moves;
  while (high - low > 1) {
    int middle = (low + high) / 2;
    if (starts[middle] <= piece)
      low = middle;
    else
      high = middle;
  }
  return low;
}

// buffers: addresses [num_buffers] of [rows][max_len][token_bytes], token_bytes a multiple of 16. lens int [rows] in tokens,
// finished int [rows].
extern "C" __global__ __launch_bounds__(kMoveThreads) void reorder_kv(
    const u64* buffers, int num_buffers, const int* num_rows, const int* finished, const int* lens, int max_len, int token_bytes
) {
  __shared__ Moves moves;
  __shared__ int starts[kMaxRows / 2];
  wait_for_previous_kernel();
  let_next_kernel_begin();
  plan_moves(finished, *num_rows, moves);
  if (moves.count == 0) return;
  i64 token_words = token_bytes / sizeof(int4), row_words = max_len * token_words;
  int num_pieces = count_pieces(lens, token_words, moves, starts);
  for (i64 i = blockIdx.x; i < static_cast<i64>(num_pieces) * num_buffers; i += gridDim.x) {
    int buffer = i / num_pieces, piece = i % num_pieces, move = find_move(starts, moves.count, piece);
    int source = move_source(moves, move), destination = move_destination(moves, move);
    int4* base = reinterpret_cast<int4*>(buffers[buffer]);
    i64 begin = static_cast<i64>(piece - starts[move]) * kPiece;
    copy_piece(base + destination * row_words, base + source * row_words, begin, lens[source] * token_words);
  }
}
