// Ordinary writes to shared memory come late to what reads it by another way, wgmma and the bulk engine, unless the writing thread
// fences in between (PTX ISA, "Proxies"). Of each word in the dynamic part: who wrote it, and before which of the writer's fences.
#pragma once

#include "shared_memory.h"

namespace emulator {

struct Written {
  u16 writer, epoch;  // epoch 0: not written so
};

constexpr u32 kWord = 4;
inline Written written[kMaxShared / kWord];
inline u16 epochs[kMaxThreads];

inline UNCHECKED void note_write(u64 address, u64 size) {
  u64 place = address - reinterpret_cast<u64>(shared.dynamic);
  if (place >= shared.num_dynamic) return;
  for (u64 word = place / kWord; word * kWord < place + size; word++) written[word] = {u16(block.current->id), epochs[block.current->id]};
}

inline UNCHECKED void note_fence() { epochs[block.current->id]++; }

// Before the other way reads or writes there.
inline UNCHECKED void check_fenced(const void* pointer, u64 size, const char* what, Site site) {
  u64 place = reinterpret_cast<u64>(pointer) - reinterpret_cast<u64>(shared.dynamic);
  if (place >= shared.num_dynamic) return;
  for (u64 word = place / kWord; word * kWord < place + size; word++) {
    Written last = written[word];
    if (last.epoch != 0 && epochs[last.writer] == last.epoch)
      fail("has %s at %s:%d touch what thread %d wrote without an async_proxy_fence", what, site.file, site.line, last.writer);
  }
}

inline UNCHECKED void forget_writes(u64 address, u64 size) {
  u64 place = address - reinterpret_cast<u64>(shared.dynamic);
  if (place >= shared.num_dynamic) return;
  for (u64 word = place / kWord; word * kWord < place + size; word++) written[word] = {};
}

inline UNCHECKED void reset_proxies() {
  memset(written, 0, (shared.num_dynamic + kWord - 1) / kWord * sizeof(Written));
  for (u16& epoch : epochs) epoch = 1;
}

}  // namespace emulator
