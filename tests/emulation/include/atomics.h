// Blocks run one after the other and fibers give way only where they wait, so plain accesses are atomic.
#pragma once

#include "language.h"

#define ATOMIC(name, T, result)            \
  inline T name(T* place, T value) {       \
    T old = *place;                        \
    *place = T(result);                    \
    return old;                            \
  }

#define ATOMIC_INTEGERS(name, result) \
  ATOMIC(name, int, result)           \
  ATOMIC(name, u32, result)           \
  ATOMIC(name, u64, result)

ATOMIC_INTEGERS(atomicAdd, old + value)
ATOMIC(atomicAdd, float, old + value)
ATOMIC(atomicAdd, double, old + value)
ATOMIC(atomicSub, int, old - value)
ATOMIC(atomicSub, u32, old - value)
ATOMIC_INTEGERS(atomicMax, old > value ? old : value)
ATOMIC(atomicMax, i64, old > value ? old : value)
ATOMIC_INTEGERS(atomicMin, old < value ? old : value)
ATOMIC(atomicMin, i64, old < value ? old : value)
ATOMIC_INTEGERS(atomicOr, old | value)
ATOMIC_INTEGERS(atomicAnd, old & value)
ATOMIC_INTEGERS(atomicXor, old ^ value)
ATOMIC_INTEGERS(atomicExch, value)
ATOMIC(atomicExch, float, value)
ATOMIC(atomicInc, u32, old >= value ? 0 : old + 1)
ATOMIC(atomicDec, u32, old == 0 || old > value ? value : old - 1)

#undef ATOMIC_INTEGERS
#undef ATOMIC

template <class T>
inline T emulated_cas(T* place, T expected, T value) {
  T old = *place;
  if (old == expected) *place = value;
  return old;
}
inline int atomicCAS(int* place, int expected, int value) { return emulated_cas(place, expected, value); }
inline u32 atomicCAS(u32* place, u32 expected, u32 value) { return emulated_cas(place, expected, value); }
inline u64 atomicCAS(u64* place, u64 expected, u64 value) { return emulated_cas(place, expected, value); }

inline void __threadfence() {}
inline void __threadfence_block() {}
inline void __threadfence_system() {}
