// What the lanes of a warp do together. The lanes of a mask meet; the last to come does the work for all of them.
#pragma once

#include "elements.h"
#include "fibers.h"

namespace emulator {

// What lanes meet in. Aligned: at one place of the program.
struct Intrinsic {
  const char* name;
  bool is_aligned;
};

// At most one a mask at a time.
struct Meeting {
  u32 mask, arrived;
  const Intrinsic* intrinsic;
  void* brought[kWarp];
};

struct Warp {
  Meeting meetings[kWarp];
  int num_meetings;
};

inline Warp warps[kMaxThreads / kWarp];

UNCHECKED inline Thread& lane_thread(int lane) { return block.threads[block.current->id / kWarp * kWarp + lane]; }

// Lanes of the mask that there are; a block's last warp may be short.
UNCHECKED inline u32 check_mask(u32 mask, const Intrinsic& intrinsic, Site site) {
  int lane = block.current->id % kWarp, num_lanes = block.num_threads - (block.current->id - lane);
  if (num_lanes < kWarp) mask &= (1u << num_lanes) - 1;
  if (!(mask >> lane & 1)) fail("calls %s at %s:%d with the mask %08x, which lacks it", intrinsic.name, site.file, site.line, mask);
  for (int other = 0; other < kWarp; other++)
    if ((mask >> other & 1) && lane_thread(other).exited)
      fail("calls %s at %s:%d, but lane %d of the mask %08x has ended", intrinsic.name, site.file, site.line, other, mask);
  return mask;
}

UNCHECKED inline Meeting& find_meeting(Warp& warp, u32 mask, const Intrinsic& intrinsic, Site site) {
  for (int i = 0; i < warp.num_meetings; i++) {
    Meeting& meeting = warp.meetings[i];
    if (meeting.mask != mask) continue;
    if (meeting.intrinsic != &intrinsic)
      fail("calls %s at %s:%d while others of its warp call %s", intrinsic.name, site.file, site.line, meeting.intrinsic->name);
    return meeting;
  }
  Meeting& meeting = warp.meetings[warp.num_meetings++];
  meeting.mask = mask;
  meeting.arrived = 0;
  meeting.intrinsic = &intrinsic;
  return meeting;
}

inline void check_place(int lane, const Intrinsic& intrinsic, Site site) {
  Site other = lane_thread(lane).site;
  if (other.line != site.line)
    fail("calls %s at %s:%d, others of its warp at %s:%d", intrinsic.name, site.file, site.line, other.file, other.line);
}

// `work` gets what each lane of the mask brought (null for the others) and the mask.
template <class Brought>
UNCHECKED void meet(u32 mask, const Intrinsic& intrinsic, Site site, Brought& mine, void (*work)(Brought* const* lanes, u32 mask)) {
  mask = check_mask(mask, intrinsic, site);
  int lane = block.current->id % kWarp;
  Warp& warp = warps[block.current->id / kWarp];
  Meeting& meeting = find_meeting(warp, mask, intrinsic, site);
  meeting.brought[lane] = &mine;
  meeting.arrived |= 1u << lane;
  if (meeting.arrived != mask) return wait(intrinsic.name, &meeting, site);
  Brought* lanes[kWarp] = {};
  for (int i = 0; i < kWarp; i++) {
    if (!(mask >> i & 1)) continue;
    lanes[i] = static_cast<Brought*>(meeting.brought[i]);
    if (i == lane) continue;
    if (intrinsic.is_aligned) check_place(i, intrinsic, site);
    make_ready(lane_thread(i));
  }
  meeting = warp.meetings[--warp.num_meetings];
  work(lanes, mask);
}

// A thread that ends while its warp waits for it is an error.
inline void leave_warp() {
  int lane = block.current->id % kWarp;
  Warp& warp = warps[block.current->id / kWarp];
  for (int i = 0; i < warp.num_meetings; i++)
    if (warp.meetings[i].mask >> lane & 1) fail("ended while others of its warp wait for it in %s", warp.meetings[i].intrinsic->name);
}

struct Shuffle {
  u64 value;
  int source;
};

UNCHECKED inline void shuffle_all(Shuffle* const* lanes, u32 mask) {
  u64 values[kWarp];
  for (int lane = 0; lane < kWarp; lane++)
    if (mask >> lane & 1) values[lane] = lanes[lane]->value;
  for (int lane = 0; lane < kWarp; lane++) {
    if (!(mask >> lane & 1)) continue;
    int source = lanes[lane]->source;
    if (!(mask >> source & 1)) fail("has lane %d shuffle from lane %d, which the mask %08x lacks", lane, source, mask);
    lanes[lane]->value = values[source];
  }
}

template <class T>
T shuffle(u32 mask, const Intrinsic& intrinsic, Site site, T value, int source) {
  static_assert(sizeof(T) <= sizeof(u64), "at most 64 bits");
  Shuffle mine = {0, source};
  memcpy(&mine.value, &value, sizeof(T));
  meet(mask, intrinsic, site, mine, shuffle_all);
  memcpy(&value, &mine.value, sizeof(T));
  return value;
}

inline int own_lane() { return int(threadIdx.x % kWarp); }

inline constexpr Intrinsic kShuffle = {"__shfl_sync", false}, kShuffleUp = {"__shfl_up_sync", false};
inline constexpr Intrinsic kShuffleDown = {"__shfl_down_sync", false}, kShuffleXor = {"__shfl_xor_sync", false};
inline constexpr Intrinsic kVote = {"a vote", false}, kReduce = {"__reduce_sync", false}, kSyncWarp = {"__syncwarp", false};

struct Votes {
  bool vote;
  u32 votes;
};

inline u32 vote(u32 mask, Site site, bool mine) {
  Votes brought = {mine, 0};
  meet<Votes>(mask, kVote, site, brought, [](Votes* const* lanes, u32 all) {
    u32 votes = 0;
    for (int lane = 0; lane < kWarp; lane++)
      if ((all >> lane & 1) && lanes[lane]->vote) votes |= 1u << lane;
    for (int lane = 0; lane < kWarp; lane++)
      if (all >> lane & 1) lanes[lane]->votes = votes;
  });
  return brought.votes;
}

// combine: both words -> one.
template <class T, class Combine>
T reduce(u32 mask, Site site, T value) {
  meet<T>(mask, kReduce, site, value, [](T* const* lanes, u32 all) {
    int first = __builtin_ctz(all);
    T sum = *lanes[first];
    for (int lane = first + 1; lane < kWarp; lane++)
      if (all >> lane & 1) sum = Combine()(sum, *lanes[lane]);
    for (int lane = 0; lane < kWarp; lane++)
      if (all >> lane & 1) *lanes[lane] = sum;
  });
  return value;
}

}  // namespace emulator

#define SITE emulator::Site site = {__builtin_FILE(), __builtin_LINE()}

template <class T>
T __shfl_sync(u32 mask, T value, int source, int width = 32, SITE) {
  int lane = emulator::own_lane();
  return emulator::shuffle(mask, emulator::kShuffle, site, value, (lane & ~(width - 1)) | (source & (width - 1)));
}
template <class T>
T __shfl_up_sync(u32 mask, T value, u32 delta, int width = 32, SITE) {
  int lane = emulator::own_lane(), source = lane - int(delta);
  return emulator::shuffle(mask, emulator::kShuffleUp, site, value, source < (lane & ~(width - 1)) ? lane : source);
}
template <class T>
T __shfl_down_sync(u32 mask, T value, u32 delta, int width = 32, SITE) {
  int lane = emulator::own_lane(), source = lane + int(delta);
  return emulator::shuffle(mask, emulator::kShuffleDown, site, value, source > (lane | (width - 1)) ? lane : source);
}
template <class T>
T __shfl_xor_sync(u32 mask, T value, int lanes, int width = 32, SITE) {
  int lane = emulator::own_lane(), source = lane ^ lanes;
  return emulator::shuffle(mask, emulator::kShuffleXor, site, value, source > (lane | (width - 1)) ? lane : source);
}

inline u32 __ballot_sync(u32 mask, int predicate, SITE) { return emulator::vote(mask, site, predicate != 0); }
inline int __any_sync(u32 mask, int predicate, SITE) { return emulator::vote(mask, site, predicate != 0) != 0; }
inline int __all_sync(u32 mask, int predicate, SITE) { return emulator::vote(mask, site, predicate == 0) == 0; }

inline void __syncwarp(u32 mask = 0xffffffff, SITE) {
  int nothing = 0;
  emulator::meet<int>(mask, emulator::kSyncWarp, site, nothing, [](int* const*, u32) {});
}
