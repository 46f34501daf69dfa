// Log probabilities of the model's own distribution, before temperature, penalties and masks, as engine/sampler/logprobs.py defines them.
//
// Two launches, THREADS threads a block, grid (rows, parts), a row's last block settling it: score_tokens finds how likely the picked
// token is, list_likeliest the WIDTH likeliest tokens. Floor: each reads the logits once, 43 us for 256 rows of 128k tokens.
#include "listing.cuh"
#include "select.cuh"

constexpr float kLog2E = 1.44269504f;

// A part's share of the sum of exponentials.
struct Mass {
  float top;
  float sum;  // of e^(logit - top)
  int num_above;  // tokens likelier than the picked one
};

struct alignas(16) RowScores {
  int num_arrived;
  int num_listed;
  float norm;  // the logarithm of the sum of all exponentials
  float floor;  // a logit that at least WIDTH tokens reach
  Mass masses[MAX_PARTS];
  float classes[kNumClasses];
  Listed listed[MAX_LISTED];
};
static_assert(sizeof(RowScores) == WORK_BYTES, "the host allocates it");

DEVICE Mass join(Mass a, Mass b) {
  float top = max(a.top, b.top);
  return {top, a.sum * exp2_fast((a.top - top) * kLog2E) + b.sum * exp2_fast((b.top - top) * kLog2E), a.num_above + b.num_above};
}

DEVICE Mass no_mass() { return {-kLargest, 0.f, 0}; }

DEVICE Mass weigh_part(const float* logits, float picked, Part part) {
  Mass mine = no_mass();
  each_group_ahead(logits, part.begin, part.end, [&](int, float (&x)[kGroup]) {
    float top = max(mine.top, max(max(x[0], x[1]), max(x[2], x[3])));
    mine.sum *= exp2_fast((mine.top - top) * kLog2E);
    mine.top = top;
#pragma unroll
    for (int i = 0; i < kGroup; i++) {
      mine.sum += exp2_fast((x[i] - top) * kLog2E);
      mine.num_above += x[i] > picked;
    }
  });
  return mine;
}

// Rows that have a token.
DEVICE bool is_asked(const int* codes, const int* samples, const int* counts) {
  int row = blockIdx.x;
  return row < counts[0] && samples[row] != 0 && codes[row] >= 0 && codes[row] < VOCAB;
}

DEVICE void settle_score(RowScores& work, float picked, float* logprob, int* rank) {
  Mass whole = lane_id() < gridDim.y ? work.masses[lane_id()] : no_mass();
  whole = warp_reduce(whole, WARP, [](Mass a, Mass b) { return join(a, b); });
  float least = WIDTH > 0 && WIDTH <= kMaxClassRank ? floor_of_top(work.classes, WIDTH) : 0;
  if (threadIdx.x != 0) return;
  work.floor = least;
  work.norm = whole.top + logf(whole.sum);
  *logprob = picked - work.norm;
  *rank = whole.num_above + 1;
}

// logits [rows][logit_stride]; codes [rows] token ids, below 0 where there is none; samples [rows], counts: as scan_logits'; work [rows],
// zeroed once. Out, of the rows that have a token: logprobs, ranks [rows].
extern "C" __global__ void __launch_bounds__(THREADS, 2) score_tokens(
    const float* logits, int logit_stride, const int* codes, const int* samples, const int* counts, RowScores* work, float* logprobs,
    int* ranks
) {
  wait_for_previous_kernel();
  let_next_kernel_begin();
  if (!is_asked(codes, samples, counts)) return;
  int row = blockIdx.x;
  RowScores& mine = work[row];
  const float* own = logits + static_cast<i64>(row) * logit_stride;
  float picked = own[codes[row]];
  Mass mass = weigh_part(own, picked, own_part());
  store_classes(mass.top, mine.classes);
  mass = block_reduce(mass, [](Mass a, Mass b) { return join(a, b); });
  if (threadIdx.x == 0) mine.masses[blockIdx.y] = mass;
  if (comes_last(&mine.num_arrived)) settle_score(mine, picked, logprobs + row, ranks + row);
}

// visit(token, logit) for each of a row's tokens.
template <class Visit>
DEVICE void each_token(const float* logits, Visit visit) {
  each_group(logits, 0, kNumGroups, [&](int group, float (&x)[kGroup]) {
#pragma unroll
    for (int i = 0; i < kGroup; i++)
      if (group * kGroup + i < VOCAB) visit(group * kGroup + i, x[i]);
  });
}

// The WIDTH likeliest, whatever they are: those above the last of them, and of its equals the first.
DEVICE void list_exactly(const float* logits, const List& list) {
  KeySpan span = {kLastKey, 0};
  each_token(logits, [&](int, float logit) { span = join(span, {key_of(logit), key_of(logit)}); });
  span = block_reduce(span, [](KeySpan a, KeySpan b) { return join(a, b); });
  auto by_count = [&](auto visit) { each_token(logits, [&](int, float logit) { visit(key_of(logit), 1); }); };
  u32 edge = reach(by_count, span, WIDTH);
  int num_above = 0;
  each_token(logits, [&](int, float logit) { num_above += key_of(logit) < edge; });
  num_above = block_reduce(num_above, [](int a, int b) { return a + b; });
  auto by_token = [&](auto visit) {
    each_token(logits, [&](int token, float logit) {
      if (key_of(logit) == edge) visit(token, 1);
    });
  };
  int last = reach(by_token, {0, VOCAB - 1}, WIDTH - num_above);
  if (threadIdx.x == 0) *list.num_listed = 0;
  __syncthreads();
  each_token(logits, [&](int token, float logit) {
    u32 key = key_of(logit);
    if (key < edge || (key == edge && token <= last)) list.put(logit, token);
  });
  __syncthreads();
}

// The first WIDTH of the list, the likeliest first, equal ones by their ids.
DEVICE void write_in_order(const List& list, float norm, int* ids, float* logprobs) {
  int num_listed = *list.num_listed;
  for (int i = threadIdx.x; i < num_listed; i += THREADS) {
    Listed mine = list.entries[i];
    int place = 0;
    for (int j = 0; j < num_listed; j++) {
      Listed other = list.entries[j];
      place += other.logit > mine.logit || (other.logit == mine.logit && other.token < mine.token);
    }
    if (place >= WIDTH) continue;
    ids[place] = mine.token;
    logprobs[place] = mine.logit - norm;
  }
}

// After score_tokens, with its arguments. Out, of the rows that have a token: top_ids, top_logprobs [rows][WIDTH].
extern "C" __global__ void __launch_bounds__(THREADS, 2) list_likeliest(
    const float* logits, int logit_stride, const int* codes, const int* samples, const int* counts, RowScores* work, int* top_ids,
    float* top_logprobs
) {
  __shared__ Listed entries[MAX_LISTED];
  __shared__ int num_listed;
  constexpr bool kHasFloor = WIDTH <= kMaxClassRank;
  wait_for_previous_kernel();
  let_next_kernel_begin();
  if (!is_asked(codes, samples, counts) || (!kHasFloor && blockIdx.y > 0)) return;
  int row = blockIdx.x;
  RowScores& mine = work[row];
  const float* own = logits + static_cast<i64>(row) * logit_stride;
  List list = {entries, &num_listed};
  if (threadIdx.x == 0) num_listed = 0;
  __syncthreads();
  if (kHasFloor) {
    float floor = mine.floor;
    Part part = own_part();
    each_group_ahead(own, part.begin, part.end, [&](int group, float (&x)[kGroup]) {
#pragma unroll
      for (int i = 0; i < kGroup; i++)
        if (x[i] >= floor) list.put(x[i], group * kGroup + i);
    });
    __syncthreads();
    if (gridDim.y > 1) store_list(list, &mine.num_listed, mine.listed);
    if (!comes_last(&mine.num_arrived)) return;
    if (gridDim.y > 1) load_list(list, &mine.num_listed, mine.listed);
  }
  if (num_listed < WIDTH || num_listed > MAX_LISTED) list_exactly(own, list);
  write_in_order(list, mine.norm, top_ids + row * WIDTH, top_logprobs + row * WIDTH);
}
