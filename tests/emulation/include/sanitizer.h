// What the compiler's own checks call (-fsanitize=alignment,bounds): an access that a GPU would trap on, or one beyond an array.
#pragma once

#include "fibers.h"

namespace emulator {

// As the compiler lays them out.
struct Located {
  const char* file;
  u32 line, column;
};

}  // namespace emulator

#define SANITIZER_HANDLER extern "C" __attribute__((visibility("hidden"), used)) inline void

SANITIZER_HANDLER __ubsan_handle_type_mismatch_v1_abort(const emulator::Located* place, uintptr_t address) {
  void* pointer = reinterpret_cast<void*>(address);
  emulator::fail("takes %p for the address of something that it is not aligned for at %s:%u", pointer, place->file, place->line);
}

SANITIZER_HANDLER __ubsan_handle_out_of_bounds_abort(const emulator::Located* place, uintptr_t index) {
  emulator::fail("takes element %ld of an array that has less at %s:%u", static_cast<long>(index), place->file, place->line);
}
