// Each kernel does what no kernel may, in thread 5 or from it on.
#include "ptx.cuh"

extern "C" __global__ void different_intrinsics(int* out) {
  out[threadIdx.x] = threadIdx.x == 5 ? __shfl_xor_sync(0xffffffff, 1, 1) : __any_sync(0xffffffff, 1);
}

extern "C" __global__ void end_early(int* out) {
  if (threadIdx.x == 5) return;
  out[threadIdx.x] = __shfl_xor_sync(0xffffffff, 1, 1);
}

extern "C" __global__ void missing_in_mask(int* out) { out[threadIdx.x] = __shfl_xor_sync(0xffffffdf, 1, 0); }

extern "C" __global__ void wait_for_nobody(int* out) {
  __shared__ u64 barrier;
  if (threadIdx.x == 0) barrier_init(&barrier, 2);
  __syncthreads();
  if (threadIdx.x == 5) barrier_arrive(&barrier);
  barrier_wait(&barrier, 0);
  out[threadIdx.x] = 1;
}

extern "C" __global__ void half_at_barrier(int* out) {
  if (threadIdx.x >= 5) named_barrier_sync(1, 64);
  __syncthreads();
  out[threadIdx.x] = 1;
}

extern "C" __global__ void two_places(int* out) {
  if (threadIdx.x == 5) {
    __syncthreads();
  } else {
    __syncthreads();
  }
  out[threadIdx.x] = 1;
}

extern "C" __global__ void raw_barrier(int* out) {
  __shared__ u64 barrier;
  if (threadIdx.x == 5) barrier_arrive(&barrier);
  out[threadIdx.x] = 1;
}

extern "C" __global__ void odd_copy(int* out) {
  __shared__ __align__(16) int words[64];
  __shared__ u64 barrier;
  if (threadIdx.x == 5) {
    barrier_init(&barrier, 1);
    bulk_load(&words[1], out, 16, &barrier);
  }
}

extern "C" __global__ void not_shared(int* out) {
  if (threadIdx.x == 5) copy_async16(out, out, true);
}

extern "C" __global__ void behind_the_end(int* out) {
  SHARED_BYTES(bytes);
  if (threadIdx.x == 5) bytes[256] = 1;
  out[threadIdx.x] = 1;
}

extern "C" __global__ void no_memory(int* out) {
  if (threadIdx.x == 5) *reinterpret_cast<volatile int*>(16) = 1;
  out[threadIdx.x] = 1;
}

extern "C" __global__ void misaligned(int* out) {
  if (threadIdx.x == 5) *reinterpret_cast<int4*>(&out[5]) = make_int4(1, 2, 3, 4);
}

extern "C" __global__ void beyond_an_array(int* out) {
  __shared__ int words[64];
  words[threadIdx.x] = 1;
  __syncthreads();
  if (threadIdx.x == 5) out[5] = words[threadIdx.x + 59];
}

extern "C" __global__ void one_too_far(int* out) { out[threadIdx.x + 1] = 1; }

extern "C" __global__ void one_before(int* out) {
  int left = out[static_cast<int>(threadIdx.x) - 1];
  __syncthreads();
  out[threadIdx.x] = left;
}

extern "C" __global__ void copy_too_far(int* out) {
  __shared__ uint4 words[64];
  copy_async16(&words[threadIdx.x], &out[(threadIdx.x + 1) / 4 * 4], true);
}

extern "C" __global__ void different_products(int* out) {
  float d[4] = {};
  u32 a[4] = {};
  if (threadIdx.x == 5) {
    mma_16816(d, a, 0, 0);
  } else {
    mma_16816(d, a, 0, 0);
  }
  out[threadIdx.x] = static_cast<int>(d[0]);
}

extern "C" __global__ void wait_for_another_block(int* flag) {
  if (blockIdx.x == 0 && threadIdx.x == 0) atomicAdd(flag, 1);
  while (*static_cast<volatile int*>(flag) < 2) {
  }
}
