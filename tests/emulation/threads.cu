// What the emulator's tests of threads run.
#include "ptx.cuh"

// out [num_kinds][threads]: what every thread got from each intrinsic.
extern "C" __global__ void exchange(int* out, const int* x, int width, int delta) {
  int i = threadIdx.x, n = blockDim.x, value = x[i];
  out[0 * n + i] = __shfl_sync(0xffffffff, value, delta, width);
  out[1 * n + i] = __shfl_up_sync(0xffffffff, value, delta, width);
  out[2 * n + i] = __shfl_down_sync(0xffffffff, value, delta, width);
  out[3 * n + i] = __shfl_xor_sync(0xffffffff, value, delta, width);
  out[4 * n + i] = static_cast<int>(__ballot_sync(0xffffffff, value > 0));
  out[5 * n + i] = __any_sync(0xffffffff, value > 40) + 2 * __all_sync(0xffffffff, value > -40);
  out[6 * n + i] = __reduce_add_sync(0xffffffff, value);
  out[7 * n + i] = __reduce_max_sync(0xffffffff, value);
}

// Odd and even lanes each among themselves.
extern "C" __global__ void halves(double* out, const double* x) {
  u32 mask = threadIdx.x % 2 == 0 ? 0x55555555 : 0xaaaaaaaa;
  double sum = x[threadIdx.x];
  for (int d = 2; d < 32; d *= 2) sum += __shfl_xor_sync(mask, sum, d);
  out[threadIdx.x] = sum;
}

// out [blocks]: sums of x [blocks][n]; total: of all, written by whichever block comes last.
extern "C" __global__ void last_arriver(float* out, float* total, int* num_arrived, const float* x, int n) {
  __shared__ float parts[32];
  __shared__ bool is_last;
  float sum = 0;
  for (int i = threadIdx.x; i < n; i += blockDim.x) sum += x[blockIdx.x * n + i];
#pragma unroll
  for (int d = 16; d > 0; d /= 2) sum += __shfl_xor_sync(0xffffffff, sum, d);
  if (lane_id() == 0) parts[warp_id()] = sum;
  __syncthreads();
  if (threadIdx.x == 0) {
    sum = 0;
    for (int i = 0; i < static_cast<int>(blockDim.x) / WARP; i++) sum += parts[i];
    out[blockIdx.x] = sum;
    __threadfence();
    is_last = atomicAdd(num_arrived, 1) == static_cast<int>(gridDim.x) - 1;
  }
  __syncthreads();
  if (!is_last || threadIdx.x > 0) return;
  sum = 0;
  for (int i = 0; i < static_cast<int>(gridDim.x); i++) sum += out[i];
  *total = sum;
  *num_arrived = 0;
}

// The atomics' results, each from every thread, in out [9].
extern "C" __global__ void count(int* out, float* sum, u64* keys) {
  atomicAdd(&out[0], 2);
  atomicSub(&out[1], 1);
  atomicMax(&out[2], static_cast<int>(threadIdx.x));
  atomicMin(&out[3], -static_cast<int>(threadIdx.x));
  atomicOr(&out[4], 1 << threadIdx.x % 31);
  atomicCAS(&out[5], 0, static_cast<int>(threadIdx.x) + 1);
  atomicExch(&out[6], 7);
  if (atomicAdd(sum, 0.5f) == 0.0f) atomicAdd(&out[7], 1);
  atomicMax(keys, static_cast<u64>(threadIdx.x) << 40);
}

// Where each thread of each block is: out [blocks][threads].
extern "C" __global__ void places(int* out) {
  int place = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  out[place * blockDim.x + threadIdx.x] = place * 1000 + threadIdx.x;
}

// Shared memory as a block finds it, the kernel's own and the launch's; then it is written.
extern "C" __global__ void leftovers(float* out) {
  __shared__ float own[64];
  SHARED_BYTES(bytes);
  float* asked = reinterpret_cast<float*>(bytes);
  int i = threadIdx.x;
  out[blockIdx.x * 128 + i] = own[i];
  out[blockIdx.x * 128 + 64 + i] = asked[i];
  own[i] = asked[i] = 1.0f;
}

// out [threads] = what lies behind the address in bases [1].
extern "C" __global__ void follow(float* out, const u64* bases) {
  out[threadIdx.x] = reinterpret_cast<const float*>(bases[0])[threadIdx.x];
}
