// A launch: the blocks of the grid one after the other, in an order drawn by lot.
#pragma once

#include "copies.h"
#include "faults.h"
#include "memory.h"
#include "products.h"
#include "sanitizer.h"

namespace emulator {

struct Launch {
  dim3 grid;
  u32 num_threads, num_dynamic, max_seconds;
  void** arguments;
  u64 seed;
  const Range* tensors;  // that the arguments lie in
  u32 num_tensors;
  FindTensor find_tensor;
  u64 failed_at;  // comes back: an offset in this library, or 0
};

inline void leave() {
  leave_warp();
  open_block_barrier();
}

inline bool run_block(const Launch& launch, u64 place) {
  const dim3& grid = launch.grid;
  blockIdx = {u32(place % grid.x), u32(place / grid.x % grid.y), u32(place / grid.x / grid.y)};
  reset_barriers();
  reset_copies();
  reset_products();
  poison_shared();
  reset_proxies();
  run_threads();
  if (block.failure[0] == 0 && !canary_lives())
    append(append_place(0, block.threads[0]), " or another of it wrote behind its %u bytes of shared memory", launch.num_dynamic);
  return block.failure[0] == 0;
}

inline u64 greatest_common_divisor(u64 a, u64 b) { return b == 0 ? a : greatest_common_divisor(b, a % b); }

inline const char* run_blocks(const Launch& launch) {
  u64 num_blocks = u64(launch.grid.x) * launch.grid.y * launch.grid.z, stride = 1 + draw(u32(num_blocks));
  while (greatest_common_divisor(stride, num_blocks) != 1) stride++;
  u64 place = draw(u32(num_blocks));
  for (u64 i = 0; i < num_blocks; i++, place = (place + stride) % num_blocks)
    if (!run_block(launch, place)) return block.failure;
  return nullptr;
}

// An error's words, or null.
inline const char* run(const Launch& launch, void (*run_thread)()) {
  if (const char* words = set_up_shared(launch.num_dynamic)) return words;
  set_up_memory(launch.find_tensor);
  for (u32 i = 0; i < launch.num_tensors; i++) add_range(launch.tensors[i].start, launch.tensors[i].size, launch.tensors[i].argument);
  block.lot = launch.seed * 0x9e3779b97f4a7c15 | 1;
  for (int i = 0; i < 8; i++) draw(1);
  block.num_threads = int(launch.num_threads);
  block.run_thread = run_thread;
  block.deliver_late = deliver_bulk;
  block.thread_left = leave;
  gridDim = launch.grid;
  blockDim = {launch.num_threads, 1, 1};
  FaultsAsFailures faults(launch.max_seconds);
  return run_blocks(launch);
}

// Letters for the kinds of a kernel's parameters: p pointer, i and l integers of 4 and 8 bytes, f and d floats.
template <class T>
constexpr char kind() {
  if (__is_class(T)) return 's';
  if (T(0.5) != T(0)) return sizeof(T) == 4 ? 'f' : 'd';
  return sizeof(T) == 4 ? 'i' : sizeof(T) == 8 ? 'l' : '?';
}

template <class T>
struct Kind {
  static constexpr char value = kind<T>();
};
template <class T>
struct Kind<T*> {
  static constexpr char value = 'p';
};

inline u64 failed_offset() { return block.failed_at == 0 ? 0 : block.failed_at - memory.image; }

inline void** arguments;

template <auto kernel, class Function = decltype(kernel)>
struct Entry;

template <auto kernel, class... Parameters>
struct Entry<kernel, void (*)(Parameters...)> {
  static constexpr char kinds[] = {Kind<Parameters>::value..., 0};

  template <size_t... places>
  static UNCHECKED void call(std::index_sequence<places...>) {
    kernel(*static_cast<std::remove_const_t<Parameters>*>(arguments[places])...);
  }
  static void run_thread() { call(std::index_sequence_for<Parameters...>()); }
};

}  // namespace emulator

// What the library is called through.
#define EMULATED_EXPORT extern "C" __attribute__((visibility("default")))
#define EMULATED_KERNEL(kernel)                                                                  \
  EMULATED_EXPORT const char* kernel_parameters() { return emulator::Entry<&kernel>::kinds; }    \
  EMULATED_EXPORT const char* kernel_launch(emulator::Launch* launch) {                          \
    emulator::arguments = launch->arguments;                                                     \
    const char* words = emulator::run(*launch, emulator::Entry<&kernel>::run_thread);            \
    launch->failed_at = emulator::failed_offset();                                              \
    return words;                                                                                \
  }
