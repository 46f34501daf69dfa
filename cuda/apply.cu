// What changes before a step: rows that leave, requests that get a row, blocks and chunks handed to rows. One array of words says it all
// (engine/runner/gpu/delta.py writes it); what it says of a slot without a row is void.
//
// Columns of the rows are int [NUM_INTS][max_rows], float [NUM_FLOATS][max_rows], i64 [max_rows] and int [max_rows][MAX_STOP_IDS].
#include "ptx.cuh"
#include "scan.cuh"

constexpr int kThreads = 256;
constexpr int kTokens = 4096;  // of an admitted request that one block copies
constexpr int kInPrompt = 1 << 30;  // of a history entry: the token is in the prompt

// An admitted request's words: integer columns, float columns, seed, stop ids, number of biases, then tokens, blocks, biased tokens,
// their biases.
constexpr int kFloats = NUM_INTS, kSeed = kFloats + NUM_FLOATS, kStopIds = kSeed + 2, kNumBiases = kStopIds + MAX_STOP_IDS;
constexpr int kTokenIds = kNumBiases + 1;

// Marks the rows of slots; reorder takes them out. Grid: ceil(num_slots / 256) blocks of 256.
extern "C" __global__ __launch_bounds__(kThreads) void evict(
    const int* slots, int num_slots, const int* row_of_slot, int* finished, int* any_finished
) {
  wait_for_previous_kernel();
  int i = blockIdx.x * kThreads + threadIdx.x;
  int row = i < num_slots ? row_of_slot[slots[i]] : -1;
  if (row < 0) return;
  finished[row] = 1;
  *any_finished = 1;
}

DEVICE void write_columns(const int* admit, int row, int max_rows, int* ints, int* floats, int* seed, int* stop_ids) {
  for (int i = threadIdx.x; i < NUM_INTS; i += kThreads) ints[i * max_rows + row] = admit[i];
  for (int i = threadIdx.x; i < NUM_FLOATS; i += kThreads) floats[i * max_rows + row] = admit[kFloats + i];
  for (int i = threadIdx.x; i < 2; i += kThreads) seed[2 * row + i] = admit[kSeed + i];
  for (int i = threadIdx.x; i < MAX_STOP_IDS; i += kThreads) stop_ids[row * MAX_STOP_IDS + i] = admit[kStopIds + i];
}

DEVICE void write_bias(const int* admit, float* bias) {
  int num_biases = admit[kNumBiases];
  const int* tokens = admit + kTokenIds + admit[COLUMN_NUM_TOKENS] + admit[COLUMN_NUM_BLOCKS];
  for (int i = threadIdx.x; i < num_biases; i += kThreads) bias[tokens[i]] = __int_as_float(tokens[num_biases + i]);
}

// One block's share of the tokens, and of their counts if there are any. history: the request's entry, zero so far, or null.
DEVICE void write_tokens(const int* admit, int first, int* token_ids, int* history) {
  int num_prompt = admit[COLUMN_NUM_PROMPT], end = min(admit[COLUMN_NUM_TOKENS], first + kTokens);
#pragma unroll 4
  for (int i = first + threadIdx.x; i < end; i += kThreads) token_ids[i] = admit[kTokenIds + i];
  if (!history) return;
  for (int i = first + threadIdx.x; i < end; i += kThreads) {
    int* entry = history + admit[kTokenIds + i];
    if (i < num_prompt)
      atomicOr(entry, kInPrompt);
    else
      atomicAdd(entry, 1);
  }
}

// Blocks at the ends of block tables. earlier[i]: pairs of the same slot before pair i.
DEVICE void append_blocks(
    const int* slots, const int* block_ids, const int* earlier, int num_pairs, const int* row_of_slot, int* num_blocks, int* block_tables,
    int max_blocks
) {
  for (int i = threadIdx.x; i < num_pairs; i += kThreads) {
    int row = row_of_slot[slots[i]];
    if (row >= 0) block_tables[static_cast<i64>(slots[i]) * max_blocks + num_blocks[row] + earlier[i]] = block_ids[i];
  }
  __syncthreads();
  for (int i = threadIdx.x; i < num_pairs; i += kThreads) {
    int row = row_of_slot[slots[i]];
    if (row >= 0) atomicAdd(num_blocks + row, 1);
  }
}

// words: admit starts [num_admits], block slots, block ids and their `earlier` [num_pairs each], chunk slots and chunk sizes
// [num_chunks each], then what the admit starts point at. Admits get the rows behind the last, in their order, and the zeroed or filled
// entries of history and bias that their columns name. Grid: (max(1, admits), ceil(tokens of the longest / 4096)) blocks of 256.
extern "C" __global__ __launch_bounds__(kThreads) void apply(
    const int* words, int num_admits, int num_pairs, int num_chunks, int* history, float* bias, int vocab_size, int max_rows, int* ints,
    int* floats, int* seed, int* stop_ids, int* token_ids, int max_model_len, int* block_tables, int max_blocks, int* row_of_slot,
    int* chunk_of_slot, int* num_rows, u64* pools, int* arrivals
) {
  wait_for_previous_kernel();
  if (blockIdx.x < num_admits) {
    const int* admit = words + words[blockIdx.x];
    int row = *num_rows + blockIdx.x, slot = admit[COLUMN_SLOT];
    i64 history_entry = admit[COLUMN_HISTORY_ENTRY], bias_entry = admit[COLUMN_BIAS_ENTRY];
    int* counts = history_entry < 0 ? nullptr : history + history_entry * vocab_size;
    write_tokens(admit, blockIdx.y * kTokens, token_ids + static_cast<i64>(slot) * max_model_len, counts);
    if (blockIdx.y == 0) {
      write_columns(admit, row, max_rows, ints, floats, seed, stop_ids);
      const int* block_ids = admit + kTokenIds + admit[COLUMN_NUM_TOKENS];
      for (int i = threadIdx.x; i < admit[COLUMN_NUM_BLOCKS]; i += kThreads)
        block_tables[static_cast<i64>(slot) * max_blocks + i] = block_ids[i];
      if (bias_entry >= 0) write_bias(admit, bias + bias_entry * vocab_size);
      if (threadIdx.x == 0) {
        row_of_slot[slot] = row;
        chunk_of_slot[slot] = 0;
      }
    }
  }
  if (!arrives_last(arrivals)) return;
  const int* pairs = words + num_admits;
  int* num_blocks = ints + COLUMN_NUM_BLOCKS * max_rows;
  append_blocks(pairs, pairs + num_pairs, pairs + 2 * num_pairs, num_pairs, row_of_slot, num_blocks, block_tables, max_blocks);
  const int* chunks = pairs + 3 * num_pairs;
  for (int i = threadIdx.x; i < num_chunks; i += kThreads)
    if (row_of_slot[chunks[i]] >= 0) chunk_of_slot[chunks[i]] = chunks[num_chunks + i];
  if (threadIdx.x == 0) {
    *num_rows += num_admits;
    pools[0] = reinterpret_cast<u64>(history);
    pools[1] = reinterpret_cast<u64>(bias);
    *arrivals = 0;
  }
}
