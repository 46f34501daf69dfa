// Products by fragments: each kernel is one warp or one warpgroup.
#include "ptx.cuh"
#include "wgmma.cuh"

// 16 bytes a thread; the launch has WARP or WARPGROUP threads.
DEVICE void fetch(Element* shared, const Element* x, int num_elements) {
  for (int i = threadIdx.x; i < num_elements / 8; i += blockDim.x)
    reinterpret_cast<uint4*>(shared)[i] = reinterpret_cast<const uint4*>(x)[i];
  __syncthreads();
}

DEVICE void store(float* out, const float (&d)[4], int row, int column, int stride) {
  for (int i = 0; i < 4; i++) out[(row + lane_id() / 4 + i / 2 * 8) * stride + column + lane_id() % 4 * 2 + i % 2] = d[i];
}

// out [16, 16] = a [16, 16] b, where b is [16 steps, 16 columns] or, TRANSPOSED 0, [16 columns, 16 steps].
extern "C" __global__ void mma_warp(float* out, const Element* a, const Element* b) {
  __shared__ uint4 a_words[32], b_words[32];
  Element *a_tile = reinterpret_cast<Element*>(a_words), *b_tile = reinterpret_cast<Element*>(b_words);
  fetch(a_tile, a, 256);
  fetch(b_tile, b, 256);
  int lane = lane_id();
  u32 left[4], right[4];
  load_matrix_x4(left, &a_tile[lane % 16 * 16 + lane / 16 * 8]);
#if TRANSPOSED
  load_matrix_x4_transposed(right, &b_tile[lane % 16 * 16 + lane / 16 * 8]);
#else
  load_matrix_x4(right, &b_tile[(lane / 16 * 8 + lane % 8) * 16 + lane / 8 % 2 * 8]);
#endif
  for (int half = 0; half < 2; half++) {
    float d[4] = {};
    mma_16816(d, left, right[2 * half], right[2 * half + 1]);
    store(out, d, 0, half * 8, 16);
  }
}

// A tile of rows of 64 elements, as the 128-byte swizzle wants it.
DEVICE void put_swizzled(Element* tile, const Element* x, int num_rows, int stride) {
  for (int i = threadIdx.x; i < num_rows * 8; i += blockDim.x) {
    int row = i / 8, chunk = i % 8;
    *reinterpret_cast<uint4*>(&tile[row * 64 + (chunk ^ (row & 7)) * 8]) = *reinterpret_cast<const uint4*>(&x[row * stride + chunk * 8]);
  }
}

// scores [64, COLUMNS] = a [64, 64] b^T [COLUMNS, 64]; out [64, COLUMNS] = scores c, c [COLUMNS steps, COLUMNS columns]. COLUMNS: 64 or
// 128.
extern "C" __global__ void __launch_bounds__(WARPGROUP, 1)
    wgmma_chain(float* scores, float* out, const Element* a, const Element* b, const Element* c) {
  SHARED_BYTES(bytes);
  Element *a_tile = reinterpret_cast<Element*>(bytes), *b_tile = a_tile + 64 * 64, *c_tile = b_tile + COLUMNS * 64;
  put_swizzled(a_tile, a, 64, 64);
  put_swizzled(b_tile, b, COLUMNS, 64);
  for (int segment = 0; segment < COLUMNS / 64; segment++)
    put_swizzled(c_tile + segment * COLUMNS * 64, c + segment * 64, COLUMNS, COLUMNS);
#ifndef NO_PROXY_FENCE
  async_proxy_fence();
#endif
  __syncthreads();
  float s[COLUMNS / 2], sums[COLUMNS / 2] = {};
  warpgroup_fence();
  for (int step = 0; step < 4; step++)
    warpgroup_mma(s, descriptor_plus(matrix_descriptor(a_tile, 16, 1024), step * 32),
                  descriptor_plus(matrix_descriptor(b_tile, 16, 1024), step * 32), step > 0);
  warpgroup_commit();
#ifndef READ_EARLY
  warpgroup_wait<0>();
#endif
  hold(s);
  u32 left[COLUMNS / 16][4];
  for (int step = 0; step < COLUMNS / 16; step++)
    for (int i = 0; i < 4; i++) left[step][i] = pack(s[step * 8 + i * 2], s[step * 8 + i * 2 + 1]);
  warpgroup_fence();
  for (int step = 0; step < COLUMNS / 16; step++)
    warpgroup_mma_transposed(sums, left[step], matrix_descriptor(c_tile + step * 16 * 64, COLUMNS * 128, 1024));
  warpgroup_commit();
  warpgroup_wait<0>();
  int row = warp_id() * 16;
  for (int j = 0; j < COLUMNS / 8; j++) {
    float first[4], second[4];
    for (int i = 0; i < 4; i++) first[i] = s[4 * j + i], second[i] = sums[4 * j + i];
    store(scores, first, row, j * 8, COLUMNS);
    store(out, second, row, j * 8, COLUMNS);
  }
}
