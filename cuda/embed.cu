// The residual stream begins: rows of the embedding as floats. A block takes THREADS * 4 channels of one token.
//
// weight Element [vocab, HIDDEN], token_ids int32 [tokens], x float [tokens, HIDDEN]; HIDDEN is a multiple of 8.
#include "ptx.cuh"
#include "vectors.cuh"

extern "C" __global__ __launch_bounds__(THREADS) void embed(const Element* weight, const int* token_ids, float* x) {
  let_next_kernel_begin();
  wait_for_previous_kernel();
  const int channel = (static_cast<int>(blockIdx.y) * THREADS + static_cast<int>(threadIdx.x)) * 4;
  if (channel >= HIDDEN) return;
  const Element* row = weight + static_cast<i64>(token_ids[blockIdx.x]) * HIDDEN;
  uint2 words = *reinterpret_cast<const uint2*>(row + channel);
  *reinterpret_cast<float4*>(x + static_cast<i64>(blockIdx.x) * HIDDEN + channel) = widen4(words);
}
