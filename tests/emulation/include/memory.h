// Which memory a kernel may touch: its stack, shared memory, what its library holds, and tensors. Every access of a kernel comes by
// here (-fsanitize=kernel-address calls the functions below and brings none of its own).
#pragma once

#include "proxies.h"

namespace emulator {

struct Range {
  u64 start, size;
  int argument;  // its place among the launch's, or one of those below
};

constexpr int kOther = -1, kShared = -2;

// Asked for memory that no argument lies in; true: it belongs to a tensor, whose extent is put into the two words.
using FindTensor = bool (*)(u64 address, u64* start, u64* size);

constexpr int kMaxRanges = 512;

struct Memory {
  Range ranges[kMaxRanges];
  int num_ranges;
  u64 image;  // where this library was loaded
  FindTensor find_tensor;
};

inline Memory memory;

inline void add_range(u64 start, u64 size, int argument) {
  if (size > 0 && memory.num_ranges < kMaxRanges) memory.ranges[memory.num_ranges++] = {start, size, argument};
}

// This library's own constants and variables.
inline int add_image(dl_phdr_info* info, size_t, void*) {
  Range image = {~0ull, 0, kOther};
  for (int i = 0; i < info->dlpi_phnum; i++) {
    const ElfW(Phdr)& part = info->dlpi_phdr[i];
    if (part.p_type != PT_LOAD) continue;
    u64 start = info->dlpi_addr + part.p_vaddr;
    if (start < image.start) image.start = start;
    image.size = start + part.p_memsz - image.start;
  }
  if (reinterpret_cast<u64>(&memory) - image.start >= image.size) return 0;
  add_range(image.start, image.size, kOther);
  memory.image = info->dlpi_addr;
  return 1;
}

inline void set_up_memory(FindTensor find_tensor) {
  memory.num_ranges = 0;
  memory.find_tensor = find_tensor;
  add_range(reinterpret_cast<u64>(stacks()), kMaxThreads * kStackBytes, kOther);
  add_range(reinterpret_cast<u64>(shared.dynamic), shared.num_dynamic, kShared);
  add_range(reinterpret_cast<u64>(shared.fixed), shared.num_fixed, kOther);
  dl_iterate_phdr(add_image, nullptr);
}

// Words on where an address lies that is in no range.
inline const char* describe(u64 address) {
  static char words[96];
  const Range* nearest = nullptr;
  i64 least = 1 << 20;
  for (int i = 0; i < memory.num_ranges; i++) {
    const Range& range = memory.ranges[i];
    i64 distance = address < range.start ? i64(range.start - address) : i64(address - range.start - range.size);
    if (range.argument == kOther || distance >= least) continue;
    least = distance;
    nearest = &range;
  }
  if (nearest == nullptr) return "in no tensor";
  const char* side = address < nearest->start ? "before" : "behind";
  if (nearest->argument == kShared) {
    snprintf(words, sizeof(words), "%lld bytes %s the %llu of shared memory", least, side, nearest->size);
  } else {
    snprintf(words, sizeof(words), "%lld bytes %s argument %d", least, side, nearest->argument);
  }
  return words;
}

// The launch's own stack has room for whoever looks tensors up.
inline bool is_tensor(u64 address, u64 size) {
  Range found = {0, 0, kOther};
  block.ask = [](void* words) {
    Range& range = *static_cast<Range*>(words);
    if (!memory.find_tensor(range.start, &range.start, &range.size)) range.size = 0;
  };
  found.start = address;
  block.ask_about = &found;
  switch_context(block.current->context, block.launcher);
  add_range(found.start, found.size, kOther);
  return found.size > 0 && address - found.start + size <= found.size;
}

inline __attribute__((noinline)) UNCHECKED void check_unusual(u64 address, u64 size, const char* does, void* from) {
  for (int i = 0; i < memory.num_ranges; i++) {
    const Range range = memory.ranges[i];
    if (address - range.start >= range.size || address - range.start + size > range.size) continue;
    memory.ranges[i] = memory.ranges[0];
    memory.ranges[0] = range;
    return;
  }
  block.failed_at = reinterpret_cast<u64>(from);
  if (!is_tensor(address, size)) fail("%s %llu bytes %s", does, size, describe(address));
}

// Most accesses are to the same memory as the one before.
inline UNCHECKED void check(u64 address, u64 size, const char* does, void* from) {
  const Range& likely = memory.ranges[0];
  if (address - likely.start < likely.size && address - likely.start + size <= likely.size) return;
  if (block.is_running) check_unusual(address, size, does, from);
}

inline UNCHECKED void check_write(u64 address, u64 size, void* from) {
  check(address, size, "writes", from);
  note_write(address, size);
}

}  // namespace emulator

#define HOOK extern "C" __attribute__((visibility("hidden"), used)) inline UNCHECKED void
#define ACCESSES(size)                                                                                                     \
  HOOK __asan_load##size(uintptr_t address) { emulator::check(address, size, "reads", __builtin_return_address(0)); }     \
  HOOK __asan_store##size(uintptr_t address) { emulator::check_write(address, size, __builtin_return_address(0)); }

ACCESSES(1)
ACCESSES(2)
ACCESSES(4)
ACCESSES(8)
ACCESSES(16)
#undef ACCESSES

HOOK __asan_loadN(uintptr_t address, size_t size) {
  emulator::check(address, size, "reads", __builtin_return_address(0));
}
HOOK __asan_storeN(uintptr_t address, size_t size) {
  emulator::check_write(address, size, __builtin_return_address(0));
}
HOOK __asan_handle_no_return() {}
#undef HOOK
