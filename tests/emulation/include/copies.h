// Copies that run beside the threads. Each is made at once or as late as the waits allow, by lot: who reads too early finds what was
// there before, and who writes too early is overwritten.
#pragma once

#include "barriers.h"
#include "list.h"
#include "memory.h"

namespace emulator {

struct Copy {
  void* to;
  const void* from;  // null: zeros
  u32 num_bytes;
  u64* barrier;  // of a bulk copy
  int group;     // of a thread's own
  bool is_patient;  // comes only when no thread can go on
  Site site;
};

inline UNCHECKED void make_copy(const Copy& copy) {
  if (copy.from == nullptr) {
    memset(copy.to, 0, copy.num_bytes);
  } else {
    memcpy(copy.to, copy.from, copy.num_bytes);
  }
  if (copy.barrier == nullptr) return note_write(reinterpret_cast<u64>(copy.to), copy.num_bytes);
  forget_writes(reinterpret_cast<u64>(copy.to), copy.num_bytes);
  complete_bytes(copy.barrier, copy.num_bytes, copy.site);
}

// A thread's own copies, oldest first; those of groups below num_groups were committed.
struct ThreadCopies {
  List<Copy, 512> copies;
  int num_groups;  // committed in all
};

inline ThreadCopies thread_copies[kMaxThreads];
inline List<Copy, 4096> bulk_copies;

inline void check_aligned(const void* pointer, const char* what, Site site) {
  if (reinterpret_cast<uintptr_t>(pointer) % 16 != 0)
    fail("gives %s an address that is no multiple of 16 at %s:%d", what, site.file, site.line);
}

inline ThreadCopies& own_copies() { return thread_copies[block.current->id]; }

// Until only the last num_left groups may be under way; the open one may always be.
inline void wait_groups(int num_left) {
  ThreadCopies& own = own_copies();
  int num_done = 0, first_left = own.num_groups - num_left;
  while (num_done < own.copies.size && own.copies.elements[num_done].group < first_left) make_copy(own.copies.elements[num_done++]);
  own.copies.remove_first(num_done);
}

// Makes some of the bulk copies under way; all: each of them.
inline void deliver_bulk(bool all) {
  for (int i = 0; i < bulk_copies.size;) {
    if (!all && (bulk_copies.elements[i].is_patient || draw(2) == 0)) {
      i++;
      continue;
    }
    Copy copy = bulk_copies.elements[i];
    bulk_copies.remove(i);
    make_copy(copy);
  }
}

inline void start_bulk(const Copy& copy) {
  check_aligned(copy.to, "a bulk copy", copy.site);
  check_aligned(copy.from, "a bulk copy", copy.site);
  check(reinterpret_cast<u64>(copy.from), copy.num_bytes, "copies", nullptr);
  if (copy.num_bytes % 16 != 0) fail("copies %u bytes in bulk at %s:%d, no multiple of 16", copy.num_bytes, copy.site.file, copy.site.line);
  shared_offset(copy.to);
  if (copy.num_bytes > 0) shared_offset(static_cast<u8*>(copy.to) + copy.num_bytes - 1);
  check_fenced(copy.to, copy.num_bytes, "a bulk copy", copy.site);
  load_phase(copy.barrier, copy.site);
  if (draw(3) == 0) return make_copy(copy);
  bulk_copies.push(copy, "bulk copies");
  bulk_copies.elements[bulk_copies.size - 1].is_patient = draw(2) == 0;
}

inline void reset_copies() {
  bulk_copies.size = 0;
  for (int i = 0; i < block.num_threads; i++) thread_copies[i].copies.size = thread_copies[i].num_groups = 0;
}

}  // namespace emulator
