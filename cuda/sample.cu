// The next token of every row, each with its own parameters, as engine/kernels/sample_reference.py defines it; no vocabulary is sorted.
//
// A row is cut into gridDim.y parts, a block each, and the last of them to be done settles the row. Three launches, THREADS threads a
// block, grid (rows, parts): scan_logits finds each row's largest logit, weigh_tokens how the probability lies (rows with top-p but
// not top-k), race_tokens draws; greedy rows are settled by the first. Floor: each reads the logits of the rows it works on once.
#include "draw.cuh"

constexpr int kNotFinite = -1, kNothingAllowed = -2;
constexpr float kGreedyBelow = 1e-5f;

// A part's logits after the adjustment.
struct Scan {
  float top;
  int token;  // the first with the largest
  float low;  // the smallest above -infinity
  int finite;  // no NaN and no +infinity before the adjustment
};

// One row's memory between launches and between blocks.
struct alignas(16) RowWork {
  int num_arrived;
  int num_listed;
  Draw draw;
  Scan scans[MAX_PARTS];
  Arrival arrivals[MAX_PARTS];
  float classes[kNumClasses];  // the largest logit of each class of tokens
  u64 bins[kNumBins];
  Listed listed[MAX_LISTED];
};
static_assert(sizeof(RowWork) == WORK_BYTES, "the host allocates it");

DEVICE Scan join(Scan a, Scan b) {
  bool second = b.top > a.top || (b.top == a.top && b.token < a.token);
  return {second ? b.top : a.top, second ? b.token : a.token, min(a.low, b.low), a.finite & b.finite};
}

DEVICE Scan nothing_scanned() { return {-kInfinity, VOCAB, kInfinity, 1}; }

DEVICE void scan_group(int group, const float (&logits)[kGroup], Scan& scan) {
#pragma unroll
  for (int i = 0; i < kGroup; i++) {
    if (logits[i] > scan.top) scan.top = logits[i], scan.token = group * kGroup + i;
    if (logits[i] > -kInfinity) scan.low = min(scan.low, logits[i]);
  }
}

DEVICE bool is_finite(const float (&logits)[kGroup]) {
  return logits[0] <= kLargest && logits[1] <= kLargest && logits[2] <= kLargest && logits[3] <= kLargest;
}

DEVICE Scan scan_part(const float* logits, const Adjustment& adjust, Part part) {
  Scan mine = nothing_scanned();
  auto visit = [&](int group, float (&x)[kGroup]) {
    mine.finite &= is_finite(x);
    scan_group(group, x, mine);
  };
  auto visit_adjusted = [&](int group, float (&x)[kGroup]) {
    mine.finite &= is_finite(x);
    adjust(group, x);
    scan_group(group, x, mine);
  };
  if (adjust.changes)
    each_group(logits, part.begin, part.end, visit_adjusted);
  else
    each_group_ahead(logits, part.begin, part.end, visit);
  return mine;
}

DEVICE void settle_scan(const Columns& columns, int row, RowWork& work, int* codes) {
  Scan mine = nothing_scanned();
  if (lane_id() < gridDim.y) mine = work.scans[lane_id()];
  Scan whole = warp_reduce(mine, WARP, [](Scan a, Scan b) { return join(a, b); });
  bool fails = !whole.finite || whole.top == -kInfinity;
  Draw draw = {};
  if (!fails && columns.temperature[row] >= kGreedyBelow) draw = make_draw(columns, row, whole.top, whole.low);
  if (draw.kind == kList) draw.least = floor_of_top(work.classes, draw.rank);
  if (threadIdx.x != 0) return;
  work.draw = draw;
  if (draw.kind == kSettled) codes[row] = !whole.finite ? kNotFinite : fails ? kNothingAllowed : whole.token;
}

// logits [rows][logit_stride]; samples [rows]: 0 where a row has no logits; counts: the first is that of rows; work [rows], zeroed once.
// codes [rows], out: a token, kNotFinite or kNothingAllowed. Floor: 43 us for 256 rows of 128k tokens, 3 us for one.
extern "C" __global__ void __launch_bounds__(THREADS, 2) scan_logits(
    const float* logits, int logit_stride, const int* samples, const int* counts, COLUMN_PARAMETERS, RowWork* work, int* codes
) {
  wait_for_previous_kernel();
  let_next_kernel_begin();
  int row = blockIdx.x;
  RowWork& mine = work[row];
  if (row >= counts[0] || samples[row] == 0) {
    if (blockIdx.y == 0 && threadIdx.x == 0) mine.draw.kind = kSettled;
    return;
  }
  Columns columns = {COLUMN_ARGUMENTS};
  Scan scan = scan_part(logits + static_cast<i64>(row) * logit_stride, share_adjustment(columns, row), own_part());
  store_classes(scan.top, mine.classes);
  scan = block_reduce(scan, [](Scan a, Scan b) { return join(a, b); });
  if (threadIdx.x == 0) mine.scans[blockIdx.y] = scan;
  if (comes_last(&mine.num_arrived)) settle_scan(columns, row, mine, codes);
}

DEVICE void weigh_part(
    const float* logits, const Adjustment& adjust, Part part, const Draw& draw, Histogram<kNumBins>& bins
) {
  bins.clear();
  each_group(logits, part.begin, part.end, [&](int group, float (&x)[kGroup]) {
    adjust(group, x);
#pragma unroll
    for (int i = 0; i < kGroup; i++) {
      float distance = draw.distance(x[i]);
      if (!(distance <= draw.furthest)) continue;
      bins.add(min(static_cast<int>(distance * draw.places_a_unit), kNumBins - 1), weight_of(distance));
    }
  });
  __syncthreads();
}

// The bins of all parts, in the block that comes last.
DEVICE bool join_bins(Histogram<kNumBins>& bins, RowWork& work) {
  if (gridDim.y == 1) return true;
  for (int i = threadIdx.x; i < kNumBins; i += THREADS)
    if (bins.at(i)) atomicAdd(&work.bins[i], bins.at(i));
  if (!comes_last(&work.num_arrived)) return false;
  for (int i = threadIdx.x; i < kNumBins; i += THREADS) {
    u64 sum = work.bins[i];
    bins.low[i] = static_cast<u32>(sum);
    bins.high[i] = static_cast<u32>(sum >> 32);
    work.bins[i] = 0;
  }
  return true;
}

// Floor: as scan_logits'; 64-bit arithmetic takes about as long on an H100.
extern "C" __global__ void __launch_bounds__(THREADS, 2)
    weigh_tokens(const float* logits, int logit_stride, COLUMN_PARAMETERS, RowWork* work) {
  __shared__ Histogram<kNumBins> bins;
  wait_for_previous_kernel();
  let_next_kernel_begin();
  int row = blockIdx.x;
  RowWork& mine = work[row];
  if (mine.draw.kind != kWeigh) return;
  Columns columns = {COLUMN_ARGUMENTS};
  Draw draw = mine.draw;
  weigh_part(logits + static_cast<i64>(row) * logit_stride, share_adjustment(columns, row), own_part(), draw, bins);
  if (!join_bins(bins, mine)) return;
  u64 target = top_p_target(sum_slices(bins), draw.top_p);
  Crossing crossing = find_crossing(bins, target);
  if (threadIdx.x != 0) return;
  list_place(draw, crossing.bin);
  draw.target = target - crossing.before;
  mine.draw = draw;
}

// Races those of a group's tokens whose bit is set against this thread's best.
DEVICE void race_group(const Draw& draw, int group, const float (&logits)[kGroup], u32 racers, float bound, Contender& best) {
  uint4 words = token_words(group, draw.position, draw.seed);
  u32 word[kGroup] = {words.x, words.y, words.z, words.w};
  float distances[kGroup], earliest[kGroup], soonest = kInfinity;
#pragma unroll
  for (int i = 0; i < kGroup; i++) {
    distances[i] = draw.distance(logits[i]);
    earliest[i] = racers >> i & 1 ? earliest_time_of(word[i], distances[i]) : kInfinity;
    soonest = min(soonest, earliest[i]);
  }
  if (soonest > bound) return;
#pragma unroll 1
  for (int token = group * kGroup; token < group * kGroup + kGroup; token++) {  // few come here, so the code is not repeated
    if (earliest[0] <= bound && earliest[0] < kInfinity) {
      Contender mine = {time_of(word[0], distances[0]), distances[0], token};
      if (draw.comes_before(mine, best)) best = mine;
    }
#pragma unroll
    for (int i = 1; i < kGroup; i++) earliest[i - 1] = earliest[i], distances[i - 1] = distances[i], word[i - 1] = word[i];
  }
}

// The first to arrive of the part's tokens that certainly race; those that may are listed.
DEVICE Arrival race_part(const float* logits, const Adjustment& adjust, Part part, const Draw& draw, const List& list) {
  Contender best = {kInfinity, 0.f, VOCAB};
  float bound = kInfinity;  // a later time cannot be the warp's first
  auto visit = [&](int group, float (&x)[kGroup]) {
    adjust(group, x);
    u32 racers = 0;
#pragma unroll
    for (int i = 0; i < kGroup; i++) {
      float place = draw.place(x[i]);
      if (place < draw.races_below) racers |= 1u << i;
      else if (place < draw.listed_below) list.put(x[i], group * kGroup + i);
    }
    if (racers) race_group(draw, group, x, racers, bound, best);
  };
  auto update = [&] { bound = __uint_as_float(__reduce_min_sync(kEveryLane, __float_as_uint(best.time))) * kPerhaps; };
  each_group(logits, part.begin, part.end, visit, update);
  float soonest = block_reduce(best.time, [](float a, float b) { return min(a, b); });
  Arrival exact = {kInfinity, VOCAB};
  if (best.time < kInfinity && best.time <= soonest * kPerhaps) exact = draw.arrival_of(best.token, best.distance);
  return block_reduce(exact, [](Arrival a, Arrival b) { return first(a, b); });
}

// The lists and the arrivals of all parts, in the block that comes last: `list` then has the whole row's, and so has `best`.
DEVICE bool join_parts(const List& list, Arrival& best, RowWork& work) {
  if (gridDim.y == 1) return true;
  store_list(list, &work.num_listed, work.listed);
  if (threadIdx.x == 0) work.arrivals[blockIdx.y] = best;
  if (!comes_last(&work.num_arrived)) return false;
  load_list(list, &work.num_listed, work.listed);
  if (lane_id() < gridDim.y) best = work.arrivals[lane_id()];
  best = warp_reduce(best, WARP, [](Arrival a, Arrival b) { return first(a, b); });
  return true;
}

// The listed that are kept race too.
DEVICE Arrival race_listed(const List& list, const Draw& draw, Arrival best) {
  for (int i = threadIdx.x; i < *list.num_listed; i += THREADS) {
    Listed entry = list.entries[i];
    if (draw.keeps(entry.logit)) best = first(draw.arrival_of(entry.token, draw.distance(entry.logit)), best);
  }
  return block_reduce(best, [](Arrival a, Arrival b) { return first(a, b); });
}

// The row's own logits, or those of a list, as narrow wants them.
struct RowSource {
  const float* logits;
  const Adjustment& adjust;

  template <class Visit>
  DEVICE void operator()(Visit visit) const {
    each_group(logits, 0, kNumGroups, [&](int group, float (&x)[kGroup]) {
      adjust(group, x);
#pragma unroll
      for (int i = 0; i < kGroup; i++) visit(x[i]);
    });
  }
};

// Called for few rows, and long.
__device__ __attribute__((noinline)) void search_row(const float* logits, const Adjustment& adjust, Draw& draw) {
  narrow(RowSource{logits, adjust}, draw);
}

struct ListSource {
  const List& list;

  template <class Visit>
  DEVICE void operator()(Visit visit) const {
    for (int i = threadIdx.x; i < *list.num_listed; i += THREADS) visit(list.entries[i].logit);
  }
};

// Floor: as scan_logits'; the random words and the exponentials of tokens that race take about twice that on an H100.
extern "C" __global__ void __launch_bounds__(THREADS, 2)
    race_tokens(const float* logits, int logit_stride, COLUMN_PARAMETERS, RowWork* work, int* codes) {
  __shared__ Listed entries[MAX_LISTED];
  __shared__ int num_listed;
  wait_for_previous_kernel();
  let_next_kernel_begin();
  __shared__ Draw draw;  // what is not needed in the inner loop is kept out of registers
  __shared__ RowWork* mine;
  __shared__ Part part;
  int row = blockIdx.x;
  if (threadIdx.x == 0) mine = work + row, draw = mine->draw, part = own_part();
  __syncthreads();
  if (draw.kind == kSettled || (draw.kind == kAlone && blockIdx.y > 0)) return;
  Columns columns = {COLUMN_ARGUMENTS};
  const float* own = logits + static_cast<i64>(row) * logit_stride;
  const Adjustment& adjust = share_adjustment(columns, row);
  List list = {entries, &num_listed};
  Arrival best;
  for (;;) {
    __syncthreads();
    if (threadIdx.x == 0) num_listed = 0;
    if (threadIdx.x == 0 && draw.kind == kAlone) take_whole_row(draw), part = {0, kNumGroups};
    __syncthreads();
    if (draw.kind == kAlone) search_row(own, adjust, draw);
    best = race_part(own, adjust, part, draw, list);
    if (draw.kind == kAlone) break;
    if (!join_parts(list, best, *mine)) return;
    if (num_listed <= MAX_LISTED) break;
    __syncthreads();
    if (threadIdx.x == 0) draw.kind = kAlone;
  }
  if (num_listed > 0) {
    narrow(ListSource{list}, draw);
    best = race_listed(list, draw, best);
  }
  if (threadIdx.x == 0) codes[row] = static_cast<int>(best.token);
}
