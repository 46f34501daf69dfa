// Packed inputs cut into tiles of TILE_M tokens, for attention whose work on a tile grows with its input's length.
#include "input_tile.cuh"
#include "ptx.cuh"
#include "scan.cuh"

constexpr int kClasses = 128;   // of lengths, the longest first
constexpr int kClassTokens = 64;

DEVICE int class_of(int num_tokens) { return kClasses - min(ceil_div(num_tokens, kClassTokens), kClasses); }

// One block. starts int32 [num_inputs + 1]; tiles [at most starts[num_inputs] / TILE_M + num_inputs], those of long inputs before those
// of short ones; num_tiles int32 [1]. Once a batch, for all layers.
extern "C" __global__ void __launch_bounds__(1024) cut_inputs(const int* starts, int num_inputs, InputTile* tiles, int* num_tiles) {
  __shared__ int places[kClasses];
  wait_for_previous_kernel();
  if (threadIdx.x < kClasses) places[threadIdx.x] = 0;
  __syncthreads();
  for (int i = threadIdx.x; i < num_inputs; i += blockDim.x) {
    int num_tokens = starts[i + 1] - starts[i];
    if (num_tokens > 0) atomicAdd(&places[class_of(num_tokens)], ceil_div(num_tokens, TILE_M));
  }
  __syncthreads();
  int place[1] = {threadIdx.x < kClasses ? places[threadIdx.x] : 0}, total[1];
  block_scan(place, total);
  if (threadIdx.x < kClasses) places[threadIdx.x] = place[0];
  if (threadIdx.x == 0) *num_tiles = total[0];
  __syncthreads();
  for (int i = threadIdx.x; i < num_inputs; i += blockDim.x) {
    int start = starts[i], num_tokens = starts[i + 1] - start;
    if (num_tokens <= 0) continue;
    int at = atomicAdd(&places[class_of(num_tokens)], ceil_div(num_tokens, TILE_M));
    for (int first = 0; first < num_tokens; first += TILE_M) tiles[at++] = {start, num_tokens, first, 0};
  }
}
