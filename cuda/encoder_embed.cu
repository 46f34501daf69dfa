// Where an encoder's stream begins: the embeddings of a token, its position and its segment, summed and normed.
//
// words Element [vocab, HIDDEN], positions float [positions, HIDDEN] or null, types float [num_types, HIDDEN] or null; the ids int32
// [num_tokens]. A model of one segment has it for every token, whatever type_ids says. out [num_tokens, HIDDEN]: float if OUT_FLOAT.
#include "layer_norm.cuh"
#include "ptx.cuh"

#if OUT_FLOAT
using Out = float;
#else
using Out = Element;
#endif

template <typename T>
DEVICE const T* row_of(const T* table, int id) {
  return table + static_cast<i64>(id) * HIDDEN;
}

extern "C" __global__ __launch_bounds__(kBlockThreads) void embed_layer_norm(const Element* words, const float* positions,
                                                                             const float* types, const int* token_ids,
                                                                             const int* position_ids, const int* type_ids,
                                                                             const float* weight, const float* bias, Out* out,
                                                                             int num_tokens, int num_types, float eps) {
  let_next_kernel_begin();
  wait_for_previous_kernel();
  const int token = own_token<1>();
  if (token >= num_tokens) return;
  Row rows[1], other;
  load_row(row_of(words, token_ids[token]), rows[0]);
  if (positions) {
    load_row(row_of(positions, position_ids[token]), other);
    add_row(other, rows[0]);
  }
  if (types) {
    load_row(row_of(types, num_types == 1 ? 0 : type_ids[token]), other);
    add_row(other, rows[0]);
  }
  normalise(rows, weight, bias, eps);
  store_row(rows[0], out + static_cast<i64>(token) * HIDDEN);
}
