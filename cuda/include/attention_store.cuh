// A consumer's output to memory, 16 bytes a lane.
#pragma once

#include "attention_consumer.cuh"

// Lane q of a quad has column q of four rows of words and gets all four columns of row q.
DEVICE uint4 transpose_quad(const u32 (&words)[4]) {
  bool odd = lane_id() & 1, high = lane_id() & 2;
  u32 kept[2], other[2];  // of rows odd and 2 + odd: this lane's word, and its neighbour's
#pragma unroll
  for (int i = 0; i < 2; i++) {
    kept[i] = odd ? words[2 * i + 1] : words[2 * i];
    other[i] = __shfl_xor_sync(~0u, odd ? words[2 * i] : words[2 * i + 1], 1);
  }
  u32 pairs[2][2];  // the same rows' words of the even and of the odd lane
#pragma unroll
  for (int i = 0; i < 2; i++) {
    pairs[i][0] = odd ? other[i] : kept[i];
    pairs[i][1] = odd ? kept[i] : other[i];
  }
  u32 mine[2], far[2];  // of row q: from this half of the quad, and from the other half
#pragma unroll
  for (int i = 0; i < 2; i++) {
    mine[i] = high ? pairs[1][i] : pairs[0][i];
    far[i] = __shfl_xor_sync(~0u, high ? pairs[0][i] : pairs[1][i], 2);
  }
  return high ? make_uint4(far[0], far[1], mine[0], mine[1]) : make_uint4(mine[0], mine[1], far[0], far[1]);
}

// Divides by the sum of weights and writes the item's rows of `all`, Element [tokens, NUM_HEADS * HEAD_DIM]. row: of the thread's half 0.
DEVICE void store_output(Element* all, const Output& out, const Softmax& softmax, const Item& item, int row) {
#pragma unroll
  for (int half = 0; half < 2; half++) {
    float scale = 1.f / quad_sum(softmax.total[half]);
    int token = (row + 8 * half) / GROUP, head = item.kv_head * GROUP + (row + 8 * half) % GROUP;
    i64 vector = static_cast<i64>(item.first_token + token) * NUM_HEADS + head;
    Element* to = all + vector * HEAD_DIM + lane_id() % 4 * CHUNK;
#pragma unroll
    for (int i = 0; i < HEAD_DIM / 32; i++) {
      u32 words[4];
#pragma unroll
      for (int j = 0; j < 4; j++) {
        const float* pair = &out[i * 32 / PART][(i * 32 % PART / 8 + j) * 4 + half * 2];
        words[j] = pack(pair[0] * scale, pair[1] * scale);
      }
      uint4 chunk = transpose_quad(words);
      if (token < item.num_tokens) *reinterpret_cast<uint4*>(to + i * 32) = chunk;
    }
  }
}
