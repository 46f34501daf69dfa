// A step's end: picked tokens are appended, rows that end are marked for reorder, and the host is told, in an entry of a ring in its
// own memory (engine/runner/gpu/ring.py).
#include "ptx.cuh"
#include "scan.cuh"

constexpr int kThreads = 1024;

// As engine.request.Finish counts them.
constexpr int kRunning = 0, kStop = 1, kLength = 2, kError = 4;

// What a ring entry begins with; then slots, codes and finishes, int [max_rows] each.
struct Header {
  i64 step;  // written last
  i64 num_entries;
  i64 num_rows;  // that computed anything
  i64 num_tokens;  // computed
  i64 begin_ns;  // of global_timer
  i64 end_ns;
  i64 num_live;  // rows left
  i64 num_moves;  // rows that will move into the places of those that ended
};

// stop_ids int [MAX_STOP_IDS], 16-byte aligned, padded with -1 behind the last.
DEVICE bool is_stop(const int* stop_ids, int token) {
  const int4* groups = reinterpret_cast<const int4*>(stop_ids);
  for (int i = 0; i < MAX_STOP_IDS / 4; i++) {
    int4 ids = groups[i];
    if (ids.x == token || ids.y == token || ids.z == token || ids.w == token) return true;
    if (ids.w < 0) return false;
  }
  return false;
}

// length: with the token. A code below 0 says why there is no token.
DEVICE int decide_finish(int code, int length, int min_total, int max_total, const int* stop_ids) {
  if (code < 0) return kError;
  if (length > min_total && is_stop(stop_ids, code)) return kStop;
  return length >= max_total ? kLength : kRunning;
}

// ints int [NUM_INTS][max_rows]; requests int [slots][max_model_len], their tokens; pools: addresses of history int [entries][vocab_size]
// and of bias. ring: num_entries entries of entry_bytes, in the host's memory; step `s` has entry s % num_entries. Grid: one block of
// 1024. Floor: 4 us, the host's memory being more than 1 us away.
extern "C" __global__ __launch_bounds__(kThreads) void finish(
    const int* num_live, int* ints, int max_rows, const int* stop_ids, const int* query_starts, const int* samples, const int* codes,
    const u64* began, int* requests, int max_model_len, const u64* pools, int vocab_size, int* finished, int* any_finished, i64* steps,
    u8* ring, int num_ring_entries, int entry_bytes
) {
  wait_for_previous_kernel();
  let_next_kernel_begin();
  i64 step = *steps;
  Header* header = reinterpret_cast<Header*>(ring + step % num_ring_entries * entry_bytes);
  int* out_slots = reinterpret_cast<int*>(header + 1);
  int* out_codes = out_slots + max_rows;
  int* out_finishes = out_codes + max_rows;
  int num_rows = *num_live, sums[3] = {0, 0, 0};  // rows so far that sampled, that computed, that ended
  for (int first = 0; first < num_rows; first += kThreads) {
    int row = first + threadIdx.x, count = 0, slot = 0, code = 0, why = kRunning;
    bool sampled = false;
    if (row < num_rows) {
      count = query_starts[row + 1] - query_starts[row];
      sampled = samples[row];
      if (count > 0) ints[COLUMN_NUM_COMPUTED * max_rows + row] += count;
    }
    if (sampled) {
      int num_tokens = ints[COLUMN_NUM_TOKENS * max_rows + row], history_entry = ints[COLUMN_HISTORY_ENTRY * max_rows + row];
      int min_total = ints[COLUMN_MIN_TOTAL * max_rows + row], max_total = ints[COLUMN_MAX_TOTAL * max_rows + row];
      slot = ints[COLUMN_SLOT * max_rows + row];
      code = codes[row];
      why = decide_finish(code, num_tokens + 1, min_total, max_total, stop_ids + row * MAX_STOP_IDS);
      if (code >= 0) {
        requests[static_cast<i64>(slot) * max_model_len + num_tokens] = code;
        ints[COLUMN_NUM_TOKENS * max_rows + row] = num_tokens + 1;
        if (history_entry >= 0) reinterpret_cast<int*>(pools[0])[static_cast<i64>(history_entry) * vocab_size + code] += 1;
      }
      if (why != kRunning) finished[row] = 1;
    }
    int places[3] = {sampled, count > 0, why != kRunning}, totals[3];
    block_scan(places, totals);
    if (sampled) {
      int place = sums[0] + places[0];
      out_slots[place] = slot;
      out_codes[place] = code;
      out_finishes[place] = why;
    }
#pragma unroll
    for (int i = 0; i < 3; i++) sums[i] += totals[i];
  }
  int num_after = num_rows - sums[2], num_moves = 0;
  for (int first = 0; first < num_after && sums[2] > 0; first += kThreads) {
    int row = first + threadIdx.x;
    int holes[1] = {row < num_after && finished[row]}, totals[1];
    block_scan(holes, totals);
    num_moves += totals[0];
  }
  if (threadIdx.x == 0) {
    header->num_entries = sums[0];
    header->num_rows = sums[1];
    header->num_tokens = num_rows > 0 ? query_starts[num_rows] : 0;
    header->begin_ns = *began;
    header->end_ns = global_timer();
    header->num_live = num_after;
    header->num_moves = num_moves;
    if (sums[2] > 0) *any_finished = 1;
    *steps = step + 1;
  }
  __threadfence_system();
  __syncthreads();
  if (threadIdx.x == 0) *const_cast<volatile i64*>(&header->step) = step;
}
