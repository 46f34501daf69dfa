// All blocks of a decoder in one call: what the model would ask for operation by operation, without the way through Python between them.
#include "linear.h"

extern "C" {
void rms_norm_float32(float*, const float*, const float*, float*, int64_t, int64_t, float);
void rms_norm_bfloat16(float*, const Bfloat16*, const float*, Bfloat16*, int64_t, int64_t, float);
void linear_float32(const float*, const Weight*, const float*, float*, int64_t, int64_t, int64_t);
void linear_bfloat16(const Bfloat16*, const Weight*, const Bfloat16*, Bfloat16*, int64_t, int64_t, int64_t);
void rope_and_cache_float32(float*, const float*, const int32_t*, const int32_t*, float*, float*, const float*, const float*, float, int64_t, int64_t,
                            int64_t, int64_t, int64_t);
void rope_and_cache_bfloat16(Bfloat16*, const float*, const int32_t*, const int32_t*, Bfloat16*, Bfloat16*, const float*, const float*, float, int64_t,
                             int64_t, int64_t, int64_t, int64_t);
void attention_float32(const float*, const float*, const float*, const int32_t*, const int32_t*, const int32_t*, float*, int64_t, int64_t, int64_t,
                       int64_t, int64_t, int64_t, int64_t, float);
void attention_bfloat16(const Bfloat16*, const Bfloat16*, const Bfloat16*, const int32_t*, const int32_t*, const int32_t*, Bfloat16*, int64_t, int64_t,
                        int64_t, int64_t, int64_t, int64_t, int64_t, float);
void silu_mul_float32(const float*, float*, int64_t, int64_t);
void silu_mul_bfloat16(const Bfloat16*, Bfloat16*, int64_t, int64_t);
}

namespace {

template <class T>
struct Kernels;

template <>
struct Kernels<float> {
    static constexpr auto rms_norm = rms_norm_float32;
    static constexpr auto linear = linear_float32;
    static constexpr auto rope_and_cache = rope_and_cache_float32;
    static constexpr auto attention = attention_float32;
    static constexpr auto silu_mul = silu_mul_float32;
};

template <>
struct Kernels<Bfloat16> {
    static constexpr auto rms_norm = rms_norm_bfloat16;
    static constexpr auto linear = linear_bfloat16;
    static constexpr auto rope_and_cache = rope_and_cache_bfloat16;
    static constexpr auto attention = attention_bfloat16;
    static constexpr auto silu_mul = silu_mul_bfloat16;
};

struct Shape {
    int64_t hidden, inner, heads, kv_heads, head_dim, window;
    float scale, eps;
};

// One block; a bias may be null, and so may the norms of queries and keys.
struct Block {
    const float *attention_norm, *mlp_norm, *q_norm, *k_norm;
    const Weight* qkv;
    const void* qkv_bias;
    const Weight* o;
    const void* o_bias;
    const Weight* gate_up;
    const void* gate_up_bias;
    const Weight* down;
    const void* down_bias;
    void *keys, *values;
};

// One step's batch (engine/batch.py) and where it is computed.
struct Step {
    const int32_t *positions, *cache_slots, *query_starts, *context_lens, *block_tables;
    const float* rope;
    float* x;                                         // [tokens, hidden] the residual stream
    void *delta, *normed, *qkv, *attended, *gate_up, *activated;  // T [tokens, their widths]; delta is what the last block leaves to add to x
    int64_t tokens, rows, max_blocks, block_size;
};

template <class T>
void product(const void* x, const Weight* weight, const void* bias, void* out, int64_t tokens, int64_t inputs, int64_t outputs) {
    Kernels<T>::linear(static_cast<const T*>(x), weight, static_cast<const T*>(bias), static_cast<T*>(out), tokens, inputs, outputs);
}

template <class T>
void attend(const Block& b, const Step& s, const Shape& shape) {
    T *qkv = static_cast<T*>(s.qkv), *keys = static_cast<T*>(b.keys), *values = static_cast<T*>(b.values);
    product<T>(s.normed, b.qkv, b.qkv_bias, qkv, s.tokens, shape.hidden, (shape.heads + 2 * shape.kv_heads) * shape.head_dim);
    Kernels<T>::rope_and_cache(qkv, s.rope, s.positions, s.cache_slots, keys, values, b.q_norm, b.k_norm, shape.eps, s.tokens, shape.heads, shape.kv_heads,
                               shape.head_dim, s.block_size);
    Kernels<T>::attention(qkv, keys, values, s.query_starts, s.context_lens, s.block_tables, static_cast<T*>(s.attended), s.rows, shape.heads,
                          shape.kv_heads, shape.head_dim, s.block_size, s.max_blocks, shape.window, shape.scale);
    product<T>(s.attended, b.o, b.o_bias, s.delta, s.tokens, shape.heads * shape.head_dim, shape.hidden);
}

template <class T>
void feed_forward(const Block& b, const Step& s, const Shape& shape) {
    product<T>(s.normed, b.gate_up, b.gate_up_bias, s.gate_up, s.tokens, shape.hidden, 2 * shape.inner);
    T* activated = static_cast<T*>(s.activated);
    Kernels<T>::silu_mul(static_cast<const T*>(s.gate_up), activated, s.tokens, shape.inner);
    product<T>(activated, b.down, b.down_bias, s.delta, s.tokens, shape.inner, shape.hidden);
}

template <class T>
void decode(const Block* blocks, int64_t num_blocks, const Step& s, const Shape& shape) {
    T *delta = static_cast<T*>(s.delta), *normed = static_cast<T*>(s.normed);
    for (int64_t i = 0; i < num_blocks; i++) {
        Kernels<T>::rms_norm(s.x, i ? delta : nullptr, blocks[i].attention_norm, normed, s.tokens, shape.hidden, shape.eps);
        attend<T>(blocks[i], s, shape);
        Kernels<T>::rms_norm(s.x, delta, blocks[i].mlp_norm, normed, s.tokens, shape.hidden, shape.eps);
        feed_forward<T>(blocks[i], s, shape);
    }
}

}  // namespace

extern "C" void decoder_float32(const Block* blocks, int64_t num_blocks, const Step* step, const Shape* shape) {
    decode<float>(blocks, num_blocks, *step, *shape);
}

extern "C" void decoder_bfloat16(const Block* blocks, int64_t num_blocks, const Step* step, const Shape* shape) {
    decode<Bfloat16>(blocks, num_blocks, *step, *shape);
}
