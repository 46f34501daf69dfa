// The 16-bit floating point types: conversions rounded to nearest even, NaN kept (bfloat16 and IEEE 754 binary16).
#pragma once

#include "language.h"

namespace emulator {

template <class To, class From>
inline To bits_as(From from) {
  return __builtin_bit_cast(To, from);
}

struct Bfloat16 {
  u16 bits;
};

struct Half {
  u16 bits;
};

inline float widen(Bfloat16 x) { return bits_as<float>(u32(x.bits) << 16); }

inline void narrow(float x, Bfloat16& out) {
  u32 bits = bits_as<u32>(x);
  if (x != x) {
    out.bits = 0x7fff;
  } else {
    out.bits = u16((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
  }
}

// The exponent is moved by a product, which makes subnormal numbers normal on the way.
inline float widen(Half x) {
  u32 magnitude = u32(x.bits & 0x7fff) << 13, sign = u32(x.bits & 0x8000) << 16;
  float moved = bits_as<float>(magnitude) * 0x1p112f;
  u32 special = bits_as<u32>(bits_as<float>(magnitude | 0x7f800000u));
  return bits_as<float>((magnitude >= 0x0f800000u ? special : bits_as<u32>(moved)) | sign);
}

inline void narrow(float x, Half& out) {
  u32 bits = bits_as<u32>(x), sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000u) {
    out.bits = 0x7fff;
  } else if (magnitude >= 0x47800000u) {  // 65536 and more
    out.bits = u16(sign | 0x7c00);
  } else if (magnitude < 0x38800000u) {  // subnormal: the sum's last bit is worth 2^-24
    out.bits = u16(sign | (bits_as<u32>(bits_as<float>(magnitude) + 0.5f) - 0x3f000000u));
  } else {
    out.bits = u16(sign | ((magnitude - 0x38000000u + 0xfff + (magnitude >> 13 & 1)) >> 13));
  }
}

}  // namespace emulator
