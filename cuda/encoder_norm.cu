// An encoder's layer norms, with the addition of what the layer before left. Each tensor is read once and written once.
//
// Tensors are [num_tokens, HIDDEN], weight and bias float [HIDDEN], bias perhaps null. OUT_FLOAT: layer_norm's result is float, not Element.
#include "layer_norm.cuh"
#include "ptx.cuh"

#if OUT_FLOAT
using Out = float;
#else
using Out = Element;
#endif

// A token of several warps has all its block's; a warp has this many tokens.
constexpr int kRows = TOKEN_WARPS == 1 ? WARP_TOKENS : 1;
// Unless it is told how few blocks will do, the compiler for sm_100 keeps to 64 registers, and spills. 0: it is not told.
constexpr int kMinBlocks = __CUDA_ARCH__ / 100 == 10 ? 1 : 0;

DEVICE i64 place_of(int row) { return static_cast<i64>(own_token<kRows>() + row) * HIDDEN; }

// This thread's rows of x, or as many of them as there are; zeros for the others.
template <typename T>
DEVICE void load_rows(const T* x, Row (&rows)[kRows], int num_tokens) {
#pragma unroll
  for (int row = 0; row < kRows; row++) {
    if (own_token<kRows>() + row < num_tokens) {
      load_row(x + place_of(row), rows[row]);
    } else {
#pragma unroll
      for (int i = 0; i < kItems * LANES; i++) rows[row][i / LANES][i % LANES] = 0.f;
    }
  }
}

template <typename T>
DEVICE void store_rows(const Row (&rows)[kRows], T* x, int num_tokens) {
#pragma unroll
  for (int row = 0; row < kRows; row++)
    if (own_token<kRows>() + row < num_tokens) store_row(rows[row], x + place_of(row));
}

// rows = x + delta. All loads are under way before the first is waited for; delta waits for its turn as it lies in memory.
template <typename T>
DEVICE void load_sums(const T* x, const Element* delta, Row (&rows)[kRows], int num_tokens) {
  uint4 words[kRows][kItems];
#pragma unroll
  for (int row = 0; row < kRows; row++)
#pragma unroll
    for (int i = 0; i < kItems; i++) {
      bool exists = own_token<kRows>() + row < num_tokens && channel_of(i) < HIDDEN;
      words[row][i] = exists ? *reinterpret_cast<const uint4*>(delta + place_of(row) + channel_of(i)) : make_uint4(0, 0, 0, 0);
    }
  load_rows(x, rows, num_tokens);
#pragma unroll
  for (int row = 0; row < kRows; row++)
#pragma unroll
    for (int i = 0; i < kItems; i++) {
      float values[LANES];
      widen(words[row][i], values);
#pragma unroll
      for (int lane = 0; lane < LANES; lane++) rows[row][i][lane] += values[lane];
    }
}

extern "C" __global__ __launch_bounds__(kBlockThreads) void layer_norm(const float* x, const float* weight, const float* bias, Out* out,
                                                                       int num_tokens, float eps) {
  let_next_kernel_begin();
  wait_for_previous_kernel();
  if (own_token<kRows>() >= num_tokens) return;
  Row rows[kRows];
  load_rows(x, rows, num_tokens);
  normalise(rows, weight, bias, eps);
  store_rows(rows, out, num_tokens);
}

// x += delta, then its norm: for a block that norms what it reads.
extern "C" __global__ __launch_bounds__(kBlockThreads, kMinBlocks) void add_layer_norm(float* x, const Element* delta, const float* weight,
                                                                           const float* bias, Element* out, int num_tokens, float eps) {
  let_next_kernel_begin();
  wait_for_previous_kernel();
  if (own_token<kRows>() >= num_tokens) return;
  Row rows[kRows];
  load_sums(x, delta, rows, num_tokens);
  store_rows(rows, x, num_tokens);
  normalise(rows, weight, bias, eps);
  store_rows(rows, out, num_tokens);
}

// x becomes the norm of x + delta: for a block that norms what it leaves.
extern "C" __global__ __launch_bounds__(kBlockThreads) void post_layer_norm(Element* x, const Element* delta, const float* weight,
                                                                            const float* bias, int num_tokens, float eps) {
  let_next_kernel_begin();
  wait_for_previous_kernel();
  if (own_token<kRows>() >= num_tokens) return;
  Row rows[kRows];
  load_sums(x, delta, rows, num_tokens);
  normalise(rows, weight, bias, eps);
  store_rows(rows, x, num_tokens);
}
