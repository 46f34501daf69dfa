// Products of a warpgroup (4 warps, the first a multiple of 4): asynchronous, the right side in shared memory. sm_90a only.
//
// PTX ISA, "Asynchronous warpgroup level matrix instructions". Element is the type of both sides, sums are float32.
// A product d [64, N] = a [64, 16] b [16, N] leaves in thread 32 w + l of the warpgroup
//   d[4 j + 0, 1]: row 16 w + l / 4,     columns 8 j + l % 4 * 2 + {0, 1}
//   d[4 j + 2, 3]: row 16 w + l / 4 + 8, the same columns
// and takes an `a` in registers as
//   a[0]: row 16 w + l / 4, columns l % 4 * 2 + {0, 1};  a[1]: row + 8;  a[2]: columns + 8;  a[3]: both
// (the low half of a word is the lower column), so that sums packed two by two are the next product's left side.
#pragma once

#include "types.cuh"

constexpr int WARPGROUP = 128;

// Matrix descriptor of a tile in shared memory with the 128-byte swizzle: rows of 128 bytes (64 elements) of which eight make an atom of
// 1024 bytes, on a multiple of 1024, with chunk c (16 bytes) of row r in place c ^ (r % 8). Fields (all in units of 16 bytes):
//   bits 0-13 start address, 16-29 leading offset, 32-45 stride offset; bits 62-63 = 1: 128-byte swizzle.
// K-major (a row of the tile is a row of a or a column of b and holds 64 steps of the depth): stride_bytes from eight rows to the next
//   eight; the leading offset is unused (16 by custom); 32 bytes further are the next 16 steps of the depth, as the swizzle works on the address.
// MN-major (a row of the tile is one step of the depth and holds 64 columns of b): leading_bytes from 64 columns to the next 64, stride_bytes from eight
//   steps of the depth to the next eight.
DEVICE u64 matrix_descriptor(const void* shared, u32 leading_bytes, u32 stride_bytes) {
  u64 start = (static_cast<u32>(__cvta_generic_to_shared(shared)) & 0x3ffff) >> 4;
  return start | static_cast<u64>(leading_bytes >> 4) << 16 | static_cast<u64>(stride_bytes >> 4) << 32 | 1ull << 62;
}

// The tile `bytes` further on. The start address is the low word's; it never overflows.
DEVICE u64 descriptor_plus(u64 descriptor, u32 bytes) {
  return (descriptor & ~0xffffffffull) | (static_cast<u32>(descriptor) + (bytes >> 4));
}

// Before the first product, and after registers that a product uses were written otherwise.
DEVICE void warpgroup_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
// The products since the last commit become a group.
DEVICE void warpgroup_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
// Until at most kLeft groups are under way.
template <int kLeft>
DEVICE void warpgroup_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kLeft) : "memory");
}
// Keeps the compiler from moving accesses of sums across: it does not know that a product is still writing them.
template <int kCount>
DEVICE void hold(float (&sums)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; i++) asm volatile("" : "+f"(sums[i])::"memory");
}

#define FLOATS_8(d, i) \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), "+f"(d[i + 6]), "+f"(d[i + 7])
#define FLOATS_32(d, i) FLOATS_8(d, i), FLOATS_8(d, i + 8), FLOATS_8(d, i + 16), FLOATS_8(d, i + 24)
#define FLOATS_64(d) FLOATS_32(d, 0), FLOATS_32(d, 32)

#define NAMES_32 \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define NAMES_64 \
  NAMES_32 \
  ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
  "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"

#ifdef ELEMENT_FP16
#define WGMMA(n) "wgmma.mma_async.sync.aligned.m64n" n "k16.f32.f16.f16 "
#else
#define WGMMA(n) "wgmma.mma_async.sync.aligned.m64n" n "k16.f32.bf16.bf16 "
#endif

// d = a b, or d += a b where add; both sides by descriptors, both K-major. N is twice the sums of a thread.
DEVICE void warpgroup_mma(float (&d)[32], u64 a, u64 b, bool add) {
  asm volatile("{\n.reg .pred add;\nsetp.ne.b32 add, %34, 0;\n" WGMMA("64") "{" NAMES_32 "}, %32, %33, add, 1, 1, 0, 0;\n}"
               : FLOATS_32(d, 0)
               : "l"(a), "l"(b), "r"(static_cast<int>(add)));
}
DEVICE void warpgroup_mma(float (&d)[64], u64 a, u64 b, bool add) {
  asm volatile("{\n.reg .pred add;\nsetp.ne.b32 add, %66, 0;\n" WGMMA("128") "{" NAMES_64 "}, %64, %65, add, 1, 1, 0, 0;\n}"
               : FLOATS_64(d)
               : "l"(a), "l"(b), "r"(static_cast<int>(add)));
}

// d += a b; a in registers, b by a descriptor, MN-major.
DEVICE void warpgroup_mma_transposed(float (&d)[32], const u32 (&a)[4], u64 b) {
  asm volatile("{\n.reg .pred add;\nsetp.eq.b32 add, 0, 0;\n" WGMMA("64") "{" NAMES_32 "}, {%32, %33, %34, %35}, %36, add, 1, 1, 1;\n}"
               : FLOATS_32(d, 0)
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}
DEVICE void warpgroup_mma_transposed(float (&d)[64], const u32 (&a)[4], u64 b) {
  asm volatile("{\n.reg .pred add;\nsetp.eq.b32 add, 0, 0;\n" WGMMA("128") "{" NAMES_64 "}, {%64, %65, %66, %67}, %68, add, 1, 1, 1;\n}"
               : FLOATS_64(d)
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}

// Registers of every thread of this warpgroup from here on: multiples of 8, all warpgroups together within what the launch took.
template <int kRegisters>
DEVICE void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
DEVICE void give_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
