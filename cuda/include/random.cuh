// Random numbers from a counter: the same wherever, in whatever order and beside whatever else they are drawn.
#pragma once

#include "ptx.cuh"

// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC'11).
DEVICE uint4 philox(uint4 counter, u32 key0, u32 key1) {
#pragma unroll
  for (int round = 0; round < 10; round++) {
    u64 first = static_cast<u64>(counter.x) * 0xd2511f53u;
    u64 second = static_cast<u64>(counter.z) * 0xcd9e8d57u;
    counter.x = static_cast<u32>(second >> 32) ^ counter.y ^ key0;
    counter.z = static_cast<u32>(first >> 32) ^ counter.w ^ key1;
    counter.y = static_cast<u32>(second);
    counter.w = static_cast<u32>(first);
    key0 += 0x9e3779b9u;
    key1 += 0xbb67ae85u;
  }
  return counter;
}

// The words of tokens 4 * group to 4 * group + 3, the next token being the `position`th of its request.
DEVICE uint4 token_words(int group, int position, u64 seed) {
  uint4 counter = make_uint4(group, position, 0, 0);
  return philox(counter, static_cast<u32>(seed), static_cast<u32>(seed >> 32));
}

DEVICE u32 token_word(int token, int position, u64 seed) {
  uint4 words = token_words(token / 4, position, seed);
  u32 low = token & 1 ? words.y : words.x, high = token & 1 ? words.w : words.z;
  return token & 2 ? high : low;
}

// -ln(u) with u = (word + 1/2) / 2^32, to a few units in the last place also where u is next to 1.
// u = m * 2^e with m in [sqrt(1/2), sqrt(2)); ln(m) is a polynomial fitted at Chebyshev nodes in f = m - 1.
DEVICE float exponential(u32 word) {
  bool high = word >= 0xb504f334u;  // u at least sqrt(1/2): then 1 - u is taken, which u itself is too coarse for
  float x = (static_cast<float>(high ? ~word : word) + 0.5f) * 0x1p-32f;
  u32 shifted = __float_as_uint(x) + (0x3f800000u - 0x3f3504f3u);
  float e = high ? 0.f : __uint_as_float(0x4b000000u | shifted >> 23) - (0x1p23f + 127.f);
  float f = high ? -x : __uint_as_float((shifted & 0x7fffffu) + 0x3f3504f3u) - 1.f;
  float p = -0.0810155869f;
  p = fmaf(p, f, 0.127123073f);
  p = fmaf(p, f, -0.129722387f);
  p = fmaf(p, f, 0.142021745f);
  p = fmaf(p, f, -0.166422471f);
  p = fmaf(p, f, 0.200014681f);
  p = fmaf(p, f, -0.25000298f);
  p = fmaf(p, f, 0.333333284f);
  return -(f + fmaf(f * f, fmaf(f, p, -0.5f), e * 0.693147182f));
}
