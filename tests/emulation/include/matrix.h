// Matrix fragments as PTX lays them out over a warp's lanes ("Matrix fragments for mma.m16n8k16", "ldmatrix").
#pragma once

#include "shared_memory.h"
#include "warp.h"

namespace emulator {

inline constexpr Intrinsic kLoadMatrix = {"load_matrix_x4", true}, kLoadTransposed = {"load_matrix_x4_transposed", true};
inline constexpr Intrinsic kMma = {"mma_16816", true};

struct MatrixRow {
  const u8* row;
  u32 out[4];
};

// Of matrix m, lane l gets elements 2 * (l % 4) and the next of row l / 4.
UNCHECKED inline void load_matrices(MatrixRow* const* lanes, u32) {
  for (int lane = 0; lane < kWarp; lane++)
    for (int m = 0; m < 4; m++) memcpy(&lanes[lane]->out[m], lanes[8 * m + lane / 4]->row + lane % 4 * 4, 4);
}

// Of matrix m, lane l gets element l / 4 of rows 2 * (l % 4) and the next.
UNCHECKED inline void load_transposed(MatrixRow* const* lanes, u32) {
  for (int lane = 0; lane < kWarp; lane++)
    for (int m = 0; m < 4; m++) {
      u16 pair[2];
      for (int i = 0; i < 2; i++) memcpy(&pair[i], lanes[8 * m + lane % 4 * 2 + i]->row + lane / 4 * 2, 2);
      memcpy(&lanes[lane]->out[m], pair, 4);
    }
}

inline void load_matrix(u32 (&out)[4], const void* row, bool transposed, Site site) {
  if (shared_offset(row) % 16 != 0) fail("gives ldmatrix a row that does not begin at a multiple of 16 at %s:%d", site.file, site.line);
  MatrixRow mine = {static_cast<const u8*>(row), {}};
  meet(0xffffffff, transposed ? kLoadTransposed : kLoadMatrix, site, mine, transposed ? load_transposed : load_matrices);
  memcpy(out, mine.out, sizeof(out));
}

// What a lane holds of each matrix; the product comes back in d.
template <class T>
struct Fragments {
  u32 a[4], b[2];
  float d[4];
};

template <class T>
UNCHECKED void put_pair(float* low, float* high, u32 word) {
  *low = widen(T{u16(word)});
  *high = widen(T{u16(word >> 16)});
}

// a [16][16], b [16][8].
template <class T>
UNCHECKED void gather(Fragments<T>* const* lanes, float (&a)[16][16], float (&b)[16][8]) {
  for (int lane = 0; lane < kWarp; lane++) {
    int group = lane / 4, pair = lane % 4 * 2;
    for (int i = 0; i < 4; i++) {
      float* place = &a[group + i % 2 * 8][pair + i / 2 * 8];
      put_pair<T>(place, place + 1, lanes[lane]->a[i]);
    }
    for (int i = 0; i < 2; i++) put_pair<T>(&b[pair + i * 8][group], &b[pair + i * 8 + 1][group], lanes[lane]->b[i]);
  }
}

template <class T>
UNCHECKED void multiply(Fragments<T>* const* lanes, u32) {
  float a[16][16], b[16][8], d[16][8];
  gather(lanes, a, b);
  for (int m = 0; m < 16; m++) {
    float row[8] = {};
    for (int k = 0; k < 16; k++)
      for (int n = 0; n < 8; n++) row[n] += a[m][k] * b[k][n];
    memcpy(d[m], row, sizeof(row));
  }
  for (int lane = 0; lane < kWarp; lane++)
    for (int i = 0; i < 4; i++) lanes[lane]->d[i] += d[lane / 4 + i / 2 * 8][lane % 4 * 2 + i % 2];
}

}  // namespace emulator
