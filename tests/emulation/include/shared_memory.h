// A block's shared memory: what the launch asked for at its start, then the variables of the kernel. Addresses in it are 32 bits.
#pragma once

#include "fibers.h"

namespace emulator {

constexpr u32 kMaxShared = 232448;   // 227 KiB a block
constexpr u32 kReserved = 1024;      // the addresses below are the system's
constexpr u32 kCanary = 4096;        // bytes behind the dynamic part that must stay as they are
constexpr u8 kPoison = 0xff;         // a NaN in every format

struct SharedMemory {
  u8* dynamic;
  u32 num_dynamic;
  u8* fixed;
  u32 num_fixed;
};

inline SharedMemory shared;

// Makes the system set aside this thread's copy of the variables.
static thread_local u8 first_of_fixed;

// The stretch in which the kernel's own variables lie: this library's thread-local storage.
inline int find_fixed(dl_phdr_info* info, size_t, void*) {
  bool is_ours = false;
  for (int i = 0; i < info->dlpi_phnum; i++) {
    const ElfW(Phdr)& part = info->dlpi_phdr[i];
    u8 *start = reinterpret_cast<u8*>(info->dlpi_addr + part.p_vaddr), *place = reinterpret_cast<u8*>(&shared);
    if (part.p_type == PT_LOAD && place >= start && place < start + part.p_memsz) is_ours = true;
  }
  if (!is_ours) return 0;
  for (int i = 0; i < info->dlpi_phnum; i++)
    if (info->dlpi_phdr[i].p_type == PT_TLS) shared.num_fixed = u32(info->dlpi_phdr[i].p_memsz);
  shared.fixed = static_cast<u8*>(info->dlpi_tls_data);
  return 1;
}

// An error's words, or null.
inline const char* set_up_shared(u32 num_dynamic) {
  if (shared.dynamic == nullptr) shared.dynamic = static_cast<u8*>(aligned_alloc(4096, kMaxShared + 2 * kCanary));
  shared.num_dynamic = num_dynamic;
  *const_cast<volatile u8*>(&first_of_fixed) = 0;
  dl_iterate_phdr(find_fixed, nullptr);
  return u64(num_dynamic) + shared.num_fixed > kMaxShared ? "more shared memory than a block has" : nullptr;
}

inline void poison_shared() {
  memset(shared.dynamic, kPoison, shared.num_dynamic + kCanary);
  memset(shared.fixed, kPoison, shared.num_fixed);
}

inline bool canary_lives() {
  for (u32 i = 0; i < kCanary; i++)
    if (shared.dynamic[shared.num_dynamic + i] != kPoison) return false;
  return true;
}

// Where in the shared window a pointer points; fails if it does not.
inline u32 shared_offset(const void* pointer) {
  const u8* place = static_cast<const u8*>(pointer);
  if (place >= shared.dynamic && place < shared.dynamic + shared.num_dynamic) return kReserved + u32(place - shared.dynamic);
  if (place >= shared.fixed && place < shared.fixed + shared.num_fixed) return kReserved + kMaxShared + u32(place - shared.fixed);
  fail("takes %p for a place in shared memory", pointer);
}

inline u8* shared_pointer(u32 offset) {
  u32 place = offset - kReserved;
  if (place < shared.num_dynamic) return shared.dynamic + place;
  if (place - kMaxShared < shared.num_fixed) return shared.fixed + (place - kMaxShared);
  fail("takes %u for an address in shared memory", offset);
}

}  // namespace emulator

inline size_t __cvta_generic_to_shared(const void* pointer) { return emulator::shared_offset(pointer); }
