// Pipelines of copies into shared memory.
#include "ptx.cuh"

constexpr int kStages = 3, kTile = 256;  // floats a stage

// out [num_tiles] = sums of x [num_tiles][kTile]: the first warp fetches, the second adds.
extern "C" __global__ void bulk_pipeline(float* out, const float* x, int num_tiles) {
  SHARED_BYTES(bytes);
  float* tiles = reinterpret_cast<float*>(bytes);
  __shared__ u64 full[kStages], empty[kStages];
  if (threadIdx.x == 0) {
    for (int i = 0; i < kStages; i++) {
      barrier_init(&full[i], 1);
      barrier_init(&empty[i], WARP);
    }
    barrier_init_fence();
  }
  __syncthreads();
  if (warp_id() == 0) {
    if (lane_id() > 0) return;
    for (int i = 0; i < num_tiles; i++) {
      int stage = i % kStages;
      barrier_wait(&empty[stage], (i / kStages & 1) ^ 1);
      barrier_arrive_expect(&full[stage], kTile * sizeof(float));
      for (int half = 0; half < 2; half++)
        bulk_load(&tiles[stage * kTile + half * kTile / 2], &x[i * kTile + half * kTile / 2], kTile / 2 * sizeof(float), &full[stage]);
    }
    return;
  }
  for (int i = 0; i < num_tiles; i++) {
    int stage = i % kStages;
#ifndef READ_EARLY
    barrier_wait(&full[stage], i / kStages & 1);
#endif
    float sum = 0;
    for (int place = lane_id(); place < kTile; place += WARP) sum += tiles[stage * kTile + place];
    barrier_arrive(&empty[stage]);
    for (int d = 16; d > 0; d /= 2) sum += __shfl_xor_sync(0xffffffff, sum, d);
    if (lane_id() == 0) out[i] = sum;
  }
}

// out [num_tiles][kTile / 4] = each thread's 16 bytes, fetched by its neighbour; rows beyond num_valid are zeros.
extern "C" __global__ void threads_pipeline(float4* out, const float4* x, int num_tiles, int num_valid) {
  __shared__ float4 tiles[kStages][kTile / 4];
  int me = threadIdx.x, neighbour = (me + 1) % (kTile / 4);
  for (int i = 0; i < kStages - 1; i++) {
    if (i < num_tiles) copy_async16(&tiles[i][me], &x[i * (kTile / 4) + me], i < num_valid);
    copy_async_commit();
  }
  for (int i = 0; i < num_tiles; i++) {
#ifndef READ_EARLY
    copy_async_wait<kStages - 2>();
#endif
    __syncthreads();
    out[i * (kTile / 4) + me] = tiles[i % kStages][neighbour];
    int ahead = i + kStages - 1;
    if (ahead < num_tiles) copy_async16(&tiles[ahead % kStages][me], &x[ahead * (kTile / 4) + me], ahead < num_valid);
    copy_async_commit();
  }
}

// Two pairs of warps hand words over by named barriers: out [n] = x [n] + 1.
extern "C" __global__ void hand_over(int* out, const int* x, int n) {
  __shared__ int words[2][WARP];
  int pair = warp_id() / 2, lane = lane_id();
  for (int i = pair * WARP; i < n; i += 2 * WARP) {
    if (warp_id() % 2 == 0) {
      words[pair][lane] = x[i + lane] + 1;
      named_barrier_arrive(1 + 2 * pair, 2 * WARP);
      named_barrier_sync(2 + 2 * pair, 2 * WARP);
    } else {
      named_barrier_sync(1 + 2 * pair, 2 * WARP);
      out[i + lane] = words[pair][lane];
      named_barrier_arrive(2 + 2 * pair, 2 * WARP);
    }
  }
}
