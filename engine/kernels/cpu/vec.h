// One register of float lanes, loaded from and stored to float or bfloat16. Sizes that are walked in whole vectors are multiples of 16,
// the most lanes there are.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX512F__)
#include <immintrin.h>
constexpr int kLanes = 16;
constexpr int kRegisters = 32;
#elif defined(__AVX2__)
constexpr int kLanes = 8;
constexpr int kRegisters = 16;
#else
constexpr int kLanes = 4;
constexpr int kRegisters = 16;
#endif

typedef float Vec __attribute__((vector_size(4 * kLanes), aligned(4), may_alias));
typedef int32_t IntVec __attribute__((vector_size(4 * kLanes), aligned(4), may_alias));
typedef uint32_t UintVec __attribute__((vector_size(4 * kLanes), aligned(4), may_alias));
typedef uint16_t HalfVec __attribute__((vector_size(2 * kLanes), aligned(2), may_alias));

struct Bfloat16 {
    uint16_t bits;
};

inline Vec splat(float x) {
    return Vec{} + x;
}

inline Vec load(const float* p) {
    return *reinterpret_cast<const Vec*>(p);
}

inline Vec load(const Bfloat16* p) {
    UintVec wide = __builtin_convertvector(*reinterpret_cast<const HalfVec*>(p), UintVec) << 16;
    return (Vec)wide;
}

inline void store(float* p, Vec x) {
    *reinterpret_cast<Vec*>(p) = x;
}

// Added to a float's bits before the lower half is cut off, so that what is left is rounded to nearest even. Not for every NaN.
inline UintVec rounding(UintVec bits) {
    return 0x7fff + ((bits >> 16) & 1);
}

// Round to nearest even; a NaN stays one. The processor's own instruction takes numbers below 2^-126 for 0.
inline void store(Bfloat16* p, Vec x) {
#if defined(__AVX512BF16__)
    __m256bh rounded = _mm512_cvtneps_pbh((__m512)x);
    std::memcpy(p, &rounded, sizeof rounded);
#else
    UintVec bits = (UintVec)x;
    UintVec rounded = (bits + rounding(bits)) >> 16;
    UintVec quiet = (bits >> 16) | 0x40;
    UintVec kept = (UintVec)(x == x);
    *reinterpret_cast<HalfVec*>(p) = __builtin_convertvector((rounded & kept) | (quiet & ~kept), HalfVec);
#endif
}

inline float to_float(float x) {
    return x;
}

inline float to_float(Bfloat16 x) {
    uint32_t wide = uint32_t(x.bits) << 16;
    float value;
    std::memcpy(&value, &wide, sizeof value);
    return value;
}

inline void from_float(float* p, float x) {
    *p = x;
}

inline void from_float(Bfloat16* p, float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    p->bits = x == x ? uint16_t((bits + 0x7fff + ((bits >> 16) & 1)) >> 16) : uint16_t((bits >> 16) | 0x40);
}

// Over the lanes, which the compiler would add one by one.
inline float sum(Vec x) {
#if defined(__AVX512F__)
    return _mm512_reduce_add_ps((__m512)x);
#else
    float total = 0;
    for (int i = 0; i < kLanes; i++) total += x[i];
    return total;
#endif
}

inline Vec max(Vec a, Vec b) {
    return a > b ? a : b;
}

inline Vec min(Vec a, Vec b) {
    return a < b ? a : b;
}

inline float max(Vec x) {
#if defined(__AVX512F__)
    return _mm512_reduce_max_ps((__m512)x);
#else
    float most = x[0];
    for (int i = 1; i < kLanes; i++) most = x[i] > most ? x[i] : most;
    return most;
#endif
}

// e^x within 3 units in the last place for normal results; below the smallest normal float it is 0.
// Cody-Waite reduction to |r| <= ln 2 / 2, then the degree-6 Taylor polynomial in r.
inline Vec exp(Vec x) {
    Vec clamped = min(max(x, splat(-87.33f)), splat(88.37f));
    Vec shifted = clamped * 1.44269504f + 12582912.f;  // 1.5 * 2^23: the integer lands in the low bits
    IntVec n = (IntVec)shifted - 0x4b400000;
    Vec whole = shifted - 12582912.f;
    Vec r = clamped - whole * 0.693145752f - whole * 1.42860677e-6f;
    Vec p = splat(1.f / 720);
    p = p * r + 1.f / 120;
    p = p * r + 1.f / 24;
    p = p * r + 1.f / 6;
    p = p * r + 0.5f;
    p = p * r + 1.f;
    p = p * r + 1.f;
    IntVec exponent = (n + 127) << 23;
    Vec result = p * (Vec)exponent;
    return x < splat(-87.33f) ? Vec{} : result;
}
