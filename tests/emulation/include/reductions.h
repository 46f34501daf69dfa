// __reduce_*_sync.
#pragma once

#include "warp.h"

namespace emulator {

struct Add {
  u32 operator()(u32 a, u32 b) const { return a + b; }
  int operator()(int a, int b) const { return int(u32(a) + u32(b)); }
};
struct Least {
  template <class T>
  T operator()(T a, T b) const { return a < b ? a : b; }
};
struct Greatest {
  template <class T>
  T operator()(T a, T b) const { return a > b ? a : b; }
};
struct And {
  u32 operator()(u32 a, u32 b) const { return a & b; }
};
struct Or {
  u32 operator()(u32 a, u32 b) const { return a | b; }
};
struct Xor {
  u32 operator()(u32 a, u32 b) const { return a ^ b; }
};

}  // namespace emulator

#define REDUCE(name, T, Combine) \
  inline T name(u32 mask, T value, SITE) { return emulator::reduce<T, emulator::Combine>(mask, site, value); }

REDUCE(__reduce_add_sync, u32, Add)
REDUCE(__reduce_add_sync, int, Add)
REDUCE(__reduce_min_sync, u32, Least)
REDUCE(__reduce_min_sync, int, Least)
REDUCE(__reduce_max_sync, u32, Greatest)
REDUCE(__reduce_max_sync, int, Greatest)
REDUCE(__reduce_and_sync, u32, And)
REDUCE(__reduce_or_sync, u32, Or)
REDUCE(__reduce_xor_sync, u32, Xor)

#undef REDUCE
