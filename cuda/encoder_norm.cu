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

extern "C" __global__ __launch_bounds__(kBlockThreads) void layer_norm(const float* x, const float* weight, const float* bias, Out* out,
                                                                       int num_tokens, float eps) {
  let_next_kernel_begin();
  wait_for_previous_kernel();
  if (own_token() >= num_tokens) return;
  const i64 at = static_cast<i64>(own_token()) * HIDDEN;
  Row row;
  load_row(x + at, row);
  normalise(row, weight, bias, eps);
  store_row(row, out + at);
}

// x += delta, then its norm: for a block that norms what it reads.
extern "C" __global__ __launch_bounds__(kBlockThreads) void add_layer_norm(float* x, const Element* delta, const float* weight,
                                                                           const float* bias, Element* out, int num_tokens, float eps) {
  let_next_kernel_begin();
  wait_for_previous_kernel();
  if (own_token() >= num_tokens) return;
  const i64 at = static_cast<i64>(own_token()) * HIDDEN;
  Row row, other;
  load_row(x + at, row);
  load_row(delta + at, other);
  add_row(other, row);
  store_row(row, x + at);
  normalise(row, weight, bias, eps);
  store_row(row, out + at);
}

// x becomes the norm of x + delta: for a block that norms what it leaves.
extern "C" __global__ __launch_bounds__(kBlockThreads) void post_layer_norm(Element* x, const Element* delta, const float* weight,
                                                                            const float* bias, int num_tokens, float eps) {
  let_next_kernel_begin();
  wait_for_previous_kernel();
  if (own_token() >= num_tokens) return;
  const i64 at = static_cast<i64>(own_token()) * HIDDEN;
  Row row, other;
  load_row(x + at, row);
  load_row(delta + at, other);
  add_row(other, row);
  normalise(row, weight, bias, eps);
  store_row(row, x + at);
}
