// CUDA's arithmetic that C's library lacks.
#pragma once

#include "elements.h"

#define MIN_MAX(A, B, T)                                              \
  inline T min(A a, B b) { return T(a) < T(b) ? T(a) : T(b); }        \
  inline T max(A a, B b) { return T(a) > T(b) ? T(a) : T(b); }

MIN_MAX(int, int, int)
MIN_MAX(u32, u32, u32)
MIN_MAX(int, u32, u32)
MIN_MAX(u32, int, u32)
MIN_MAX(i64, i64, i64)
MIN_MAX(u64, u64, u64)
MIN_MAX(i64, u64, u64)
MIN_MAX(u64, i64, u64)
using emulated_size = unsigned long;
MIN_MAX(long, long, long)
MIN_MAX(emulated_size, emulated_size, emulated_size)
#undef MIN_MAX

// Of a number and NaN these give the number.
inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }
inline double min(double a, double b) { return fmin(a, b); }
inline double max(double a, double b) { return fmax(a, b); }
inline double min(float a, double b) { return fmin(a, b); }
inline double max(float a, double b) { return fmax(a, b); }
inline double min(double a, float b) { return fmin(a, b); }
inline double max(double a, float b) { return fmax(a, b); }

inline int __popc(u32 x) { return __builtin_popcount(x); }
inline int __popcll(u64 x) { return __builtin_popcountll(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(u32(x)); }
inline int __clzll(i64 x) { return x == 0 ? 64 : __builtin_clzll(u64(x)); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(i64 x) { return __builtin_ffsll(x); }
inline u32 __brev(u32 x) {
  u32 out = 0;
  for (int bit = 0; bit < 32; bit++) out |= (x >> bit & 1) << (31 - bit);
  return out;
}
inline u32 __umulhi(u32 a, u32 b) { return u32(u64(a) * b >> 32); }
inline int __mulhi(int a, int b) { return int(i64(a) * b >> 32); }
inline u64 __umul64hi(u64 a, u64 b) { return u64((unsigned __int128)a * b >> 64); }
inline u32 __funnelshift_l(u32 low, u32 high, u32 shift) { return u32(((u64(high) << 32 | low) << (shift & 31)) >> 32); }
inline u32 __funnelshift_r(u32 low, u32 high, u32 shift) { return u32((u64(high) << 32 | low) >> (shift & 31)); }
inline u32 __byte_perm(u32 a, u32 b, u32 places) {
  u64 both = u64(b) << 32 | a;
  u32 out = 0;
  for (int i = 0; i < 4; i++) out |= u32(both >> (places >> 4 * i & 7) * 8 & 0xff) << 8 * i;
  return out;
}

inline u32 __float_as_uint(float x) { return emulator::bits_as<u32>(x); }
inline int __float_as_int(float x) { return emulator::bits_as<int>(x); }
inline float __uint_as_float(u32 x) { return emulator::bits_as<float>(x); }
inline float __int_as_float(int x) { return emulator::bits_as<float>(x); }
inline i64 __double_as_longlong(double x) { return emulator::bits_as<i64>(x); }
inline double __longlong_as_double(i64 x) { return emulator::bits_as<double>(x); }

inline float rsqrtf(float x) { return float(1.0 / sqrt(double(x))); }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __fdividef(float a, float b) { return a / b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline float __fsqrt_rn(float x) { return sqrtf(x); }
inline float __saturatef(float x) { return fminf(fmaxf(x, 0.0f), 1.0f); }

inline int __float2int_rn(float x) { return int(lrintf(x)); }
inline int __float2int_rd(float x) { return int(floorf(x)); }
inline int __float2int_ru(float x) { return int(ceilf(x)); }
inline int __float2int_rz(float x) { return int(x); }
inline float __int2float_rn(int x) { return float(x); }
inline float __uint2float_rn(u32 x) { return float(x); }

// glibc's own names for internals, taken over.
inline float emulated_expf(float x) { return expf(x); }
inline float emulated_logf(float x) { return logf(x); }
#define __expf emulated_expf
#define __logf emulated_logf
#define __exp2f exp2f
#define __log2f log2f
#define __sinf sinf
#define __cosf cosf
#define __powf powf

template <class T>
inline T __ldg(const T* from) {
  return *from;
}
template <class T>
inline T __ldcg(const T* from) {
  return *from;
}
template <class T>
inline T __ldcs(const T* from) {
  return *from;
}
template <class T>
inline void __stcg(T* to, T value) {
  *to = value;
}
template <class T>
inline void __stcs(T* to, T value) {
  *to = value;
}
