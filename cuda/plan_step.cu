// From the rows to a step's packed batch (engine/batch.py, DeviceBatch): whose tokens are computed, where they lie, what attention has
// to do for them. Sizes of the bucket are arguments, true sizes are read from the device; what lies between them becomes padding.
#include "ptx.cuh"
#include "scan.cuh"

constexpr int kRowThreads = 1024;
constexpr int kTokenThreads = 256;
constexpr int kDecodeTile = 16;  // tokens of context

// The tokens' arrays of a batch.
struct Tokens {
  int* token_ids;
  int* positions;
  int* cache_slots;
  int* token_rows;
};

DEVICE void write_token(const Tokens& out, int token, int row, int position, int token_id, int block) {
  out.token_ids[token] = token_id;
  out.positions[token] = position;
  out.cache_slots[token] = block * BLOCK_SIZE + position % BLOCK_SIZE;
  out.token_rows[token] = row;
}

DEVICE void write_pad(const Tokens& out, int token) {
  out.token_ids[token] = 0;
  out.positions[token] = 0;
  out.cache_slots[token] = -1;
  out.token_rows[token] = -1;
}

// Tiles that hold a token which the last one sees.
DEVICE int num_decode_tiles(int context) {
  int first = WINDOW > 0 ? max(0, context - WINDOW) : 0;
  return ceil_div(context, kDecodeTile) - first / kDecodeTile;
}

// A row with one pending token computes it; one with more computes its chunk, which is taken from it.
DEVICE int take_count(int num_pending, int* chunk) {
  int num_tokens = *chunk;
  if (num_tokens != 0) *chunk = 0;
  return num_pending == 1 ? 1 : num_tokens;
}

// In a bucket with as many tokens as rows no row computes more than one token, and they are written here; in others fill_tokens does
// it. ints int [NUM_INTS][max_rows]; requests int [slots][max_model_len], their tokens. Grid: one block of 1024. Floor: 3 us, of which
// the loads that wait for one another take most.
extern "C" __global__ __launch_bounds__(kRowThreads) void plan_step(
    const int* num_live, const int* ints, int max_rows, int* chunk_of_slot, const int* requests, int max_model_len,
    const int* block_tables, int max_blocks, int bucket_tokens, int bucket_rows, int* counts, u64* began, int* query_starts,
    int* context_lens, int* samples, int* logit_ids, int* row_slots, int* decode_starts, int* prompt_starts, int* token_ids, int* positions,
    int* cache_slots, int* token_rows
) {
  wait_for_previous_kernel();
  let_next_kernel_begin();
  if (threadIdx.x == 0) *began = global_timer();
  Tokens out = {token_ids, positions, cache_slots, token_rows};
  bool decodes = bucket_tokens == bucket_rows;
  int num_rows = *num_live, sums[3] = {0, 0, 0};  // tokens, decode tiles, prompt tiles of the rows so far
  for (int first = 0; first < bucket_rows; first += kRowThreads) {
    int row = first + threadIdx.x, slot = 0, num_tokens = 0, position = 0;
    bool in_bucket = row < bucket_rows;
    if (in_bucket) {  // whether it is live or not: the loads need not wait for num_rows
      slot = ints[COLUMN_SLOT * max_rows + row];
      num_tokens = ints[COLUMN_NUM_TOKENS * max_rows + row];
      position = ints[COLUMN_NUM_COMPUTED * max_rows + row];
    }
    bool live = in_bucket && row < num_rows;
    int count = 0, token_id = 0, block = 0;
    if (live && decodes) {  // on their way while the sums are made
      token_id = requests[static_cast<i64>(slot) * max_model_len + position];
      block = block_tables[static_cast<i64>(slot) * max_blocks + position / BLOCK_SIZE];
    }
    if (live) count = take_count(num_tokens - position, chunk_of_slot + slot);
    int context = live ? position + count : 0;
    int starts[3] = {count, count == 1 ? num_decode_tiles(context) : 0, count > 1 ? ceil_div(count, PROMPT_TILE) : 0}, totals[3];
    block_scan(starts, totals);
    if (in_bucket) {
      int start = sums[0] + starts[0];
      query_starts[row] = start;
      decode_starts[row] = sums[1] + starts[1];
      prompt_starts[row] = sums[2] + starts[2];
      context_lens[row] = context;
      samples[row] = count > 0 && context == num_tokens;
      logit_ids[row] = count > 0 ? start + count - 1 : 0;
      row_slots[row] = live ? slot : 0;
      if (decodes && count == 1) write_token(out, start, row, position, token_id, block);
    }
#pragma unroll
    for (int i = 0; i < 3; i++) sums[i] += totals[i];
  }
  for (int token = sums[0] + threadIdx.x; decodes && token < bucket_tokens; token += kRowThreads) write_pad(out, token);
  if (threadIdx.x == 0) {
    query_starts[bucket_rows] = sums[0];
    decode_starts[bucket_rows] = sums[1];
    prompt_starts[bucket_rows] = sums[2];
    counts[0] = num_rows;
    counts[1] = sums[0];
    counts[2] = sums[1];
    counts[3] = sums[2];
  }
}

// The row whose tokens hold this one; starts int [num_rows + 1] ascending, the last greater than token.
DEVICE int find_row(const int* starts, int num_rows, int token) {
  int low = 0, high = num_rows;
  while (high - low > 1) {
    int middle = (low + high) / 2;
    if (starts[middle] <= token)
      low = middle;
    else
      high = middle;
  }
  return low;
}

// After plan_step, in buckets with more tokens than rows. Grid: ceil(bucket_tokens / 256) blocks of 256. Floor: 2 us.
extern "C" __global__ __launch_bounds__(kTokenThreads) void fill_tokens(
    const int* counts, const int* query_starts, const int* context_lens, const int* row_slots, const int* requests, int max_model_len,
    const int* block_tables, int max_blocks, int bucket_tokens, int bucket_rows, int* token_ids, int* positions, int* cache_slots,
    int* token_rows
) {
  wait_for_previous_kernel();
  let_next_kernel_begin();
  Tokens out = {token_ids, positions, cache_slots, token_rows};
  int token = blockIdx.x * kTokenThreads + threadIdx.x;
  if (token >= bucket_tokens) return;
  if (token >= counts[1]) return write_pad(out, token);
  int row = find_row(query_starts, bucket_rows, token);
  i64 slot = row_slots[row];
  int position = context_lens[row] - (query_starts[row + 1] - token);
  int token_id = requests[slot * max_model_len + position];
  write_token(out, token, row, position, token_id, block_tables[slot * max_blocks + position / BLOCK_SIZE]);
}
