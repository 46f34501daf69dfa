// Where a key or a value lies in the paged cache.
//
// A layer's keys are Element [blocks][kv_heads][BLOCK_SIZE * HEAD_DIM], its values likewise. Within one (block, head) the channels are cut
// into segments of SEGMENT, and a segment is [BLOCK_SIZE tokens][SEGMENT], its 16-byte chunks permuted by the token's place: what the
// hardware's 128-byte swizzle (64-byte for SEGMENT 32) expects in shared memory. So plain bulk copies bring tiles that ldmatrix reads
// without bank conflicts and that wgmma takes as they are.
#pragma once

#include "types.cuh"

constexpr int SEGMENT = HEAD_DIM % 64 == 0 ? 64 : 32;
constexpr int NUM_SEGMENTS = HEAD_DIM / SEGMENT;
constexpr int CHUNK = 8;  // elements in 16 bytes

// Place of `chunk` (16 bytes) in the row of a token, within a segment.
DEVICE int swizzle(int token, int chunk) {
  return SEGMENT == 64 ? chunk ^ (token & 7) : chunk ^ ((token >> 1) & 3);
}

// Element offset within one (block, head); token is the place in the block, channel a multiple of CHUNK.
DEVICE int cache_offset(int token, int channel) {
  int segment = channel / SEGMENT, chunk = channel % SEGMENT / CHUNK;
  return (segment * BLOCK_SIZE + token) * SEGMENT + swizzle(token, chunk) * CHUNK;
}
