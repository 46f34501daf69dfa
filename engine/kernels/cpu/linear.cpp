// Matrix products of packed tokens with weights laid out once (linear.h), for any number of tokens: with one the weights stream at memory
// speed, with many the same panels stay in the cache while all tokens pass. Threads share out the panels.
#include "linear.h"

#include <algorithm>
#include <type_traits>
#include <vector>

#include "amx.h"
#include "linear_many.h"

namespace {

constexpr int kRows = kRegisters == 32 ? 12 : 6;  // tokens whose sums are in registers at once, two vectors each
constexpr int64_t kVectorRows = 4;  // up to so many tokens AMX gains nothing over vectors

// What two vectors of weights, of one input, add to the sums of M tokens.
template <int M>
inline void add_products(const float* x, int64_t stride, Vec w0, Vec w1, Vec (*acc)[2]) {
#pragma GCC unroll 12
    for (int m = 0; m < M; m++) {
        acc[m][0] += x[m * stride] * w0;
        acc[m][1] += x[m * stride] * w1;
    }
}

template <int M, class T>
inline void multiply(const float* x, int64_t stride, const Dense<T>& b0, const Dense<T>& b1, Vec (*acc)[2]) {
#pragma GCC unroll 2
    for (int i = 0; i < Dense<T>::kInputs; i++) add_products<M>(x + i, stride, b0.weights(i), b1.weights(i), acc);
}

// The sums of many tokens have the registers, and the weights are widened into the first cache.
template <int M, class Block>
inline void multiply(const float* x, int64_t stride, const Block& b0, const Block& b1, Vec (*acc)[2]) {
    if constexpr (M <= 2) {
#pragma GCC unroll 32
        for (int i = 0; i < Block::kInputs; i++) add_products<M>(x + i, stride, b0.weights(i), b1.weights(i), acc);
        return;
    }
    alignas(kLine) Vec wide[2][Block::kInputs];
    widen(b0, wide[0]);
    widen(b1, wide[1]);
    for (int i = 0; i < Block::kInputs; i++) add_products<M>(x + i, stride, wide[0][i], wide[1][i], acc);
}

// sums[m] = x[m] . two panels of weights, with the memory asked for the first `asks` blocks of each of the two panels from `next` on.
template <int M, class Block>
__attribute__((noinline)) void few_sums(const float* x, int64_t stride, const Block* w0, const Block* w1, int64_t blocks, const char* next,
                                        int64_t asks, Vec (*sums)[2]) {
    Vec acc[M][2] = {};
    for (int64_t k = 0; k < blocks; k++) {
        if (k < asks) {
            for (size_t byte = 0; byte < 2 * sizeof(Block); byte += kLine) __builtin_prefetch(next + byte, 0, 2);
            next += 2 * sizeof(Block);
        }
        multiply<M>(x + k * Block::kInputs, stride, w0[k], w1[k], acc);
    }
    for (int m = 0; m < M; m++) sums[m][0] = acc[m][0], sums[m][1] = acc[m][1];
}

// x float [tokens, padded inputs]: M tokens from `first` on, against one pair of panels.
//
// Each block of tokens asks for its share of the next pair, so that the memory works all the time and not for the first block only.
template <int M, class T, class Out, class Block>
void vector_block(const Product<T, Out, Block>& p, const float* x, int64_t stride, int64_t pair, int64_t first) {
    const int64_t blocks = num_blocks<Block>(p.inputs);
    const char* next = reinterpret_cast<const char*>(p.panel(2 * pair + 2) + 2 * (first * blocks / p.tokens));
    Vec sums[M][2];
    few_sums<M>(x + first * stride, stride, p.panel(2 * pair), p.panel(2 * pair + 1), blocks, next, M * blocks / p.tokens, sums);
    for (int m = 0; m < M; m++)
        for (int half = 0; half < 2; half++)
            if (pair * kPair + half * kPanel < p.outputs) p.put(first + m, pair * kPair + half * kPanel, sums[m][half]);
}

// Up to M tokens.
template <int M, class T, class Out, class Block>
void vector_blocks(int64_t count, const Product<T, Out, Block>& p, const float* x, int64_t stride, int64_t pair, int64_t first) {
    if (count == M) return vector_block<M>(p, x, stride, pair, first);
    if constexpr (M > 1) vector_blocks<M - 1>(count, p, x, stride, pair, first);
}

// Tokens of the next block: as many as fit, or where few fit equal shares, because a block of one or two waits for its sums.
inline int64_t next_block(int64_t left) {
    if (kRegisters == 32) return std::min<int64_t>(left, kRows);
    int64_t blocks = (left + kRows - 1) / kRows;
    return (left + blocks - 1) / blocks;
}

template <class T, class Out, class Block>
void vector_pair(const Product<T, Out, Block>& p, const float* x, int64_t stride, int64_t pair) {
    for (int64_t first = 0, count; first < p.tokens; first += count) {
        count = next_block(p.tokens - first);
        vector_blocks<kRows>(count, p, x, stride, pair, first);
    }
}

template <class T, class Out, class Block>
void on_vectors(const Product<T, Out, Block>& p, const float* x, int64_t stride) {
    if (p.tokens > kFewTokens) return linear_many(p, x, stride);
#pragma omp for schedule(static)
    for (int64_t pair = 0; pair < num_pairs(p.outputs); pair++) vector_pair(p, x, stride, pair);
}

template <class Out, class Block>
void linear(const Product<float, Out, Block>& p) {
#pragma omp parallel
    on_vectors(p, p.x, p.inputs);
}

template <class Out, class Block>
bool linear_on_tiles(const Product<Bfloat16, Out, Block>&) {
    return false;
}

#ifdef HAS_TILES
template <class Out>
bool linear_on_tiles(const TileProduct<Out>& p) {
    if (p.tokens <= kVectorRows || p.inputs % kTileInputs || !tiles_allowed()) return false;
    product_on_tiles(p);
    return true;
}
#endif

template <class Out, class Block>
void linear(const Product<Bfloat16, Out, Block>& p) {
    if (linear_on_tiles(p)) return;
    static thread_local std::vector<float> scratch;  // the tokens as float, kept from call to call
    int64_t stride = (p.inputs + 1) / 2 * 2;
    float* widened = room_in(scratch, p.tokens * stride);
#pragma omp parallel
    {
#pragma omp for schedule(static)
        for (int64_t m = 0; m < p.tokens; m++) {
            for (int64_t k = 0; k < p.inputs; k++) widened[m * stride + k] = to_float(p.x[m * p.inputs + k]);
            if (stride != p.inputs) widened[m * stride + p.inputs] = 0;
        }
        on_vectors(p, widened, stride);
    }
}

template <class T, class Out>
void linear(const T* x, const Weight& weight, const T* bias, Out* out, int64_t tokens, int64_t inputs, int64_t outputs,
            Activation activation = Activation::none) {
    auto with = [&](auto panels) { linear(Product<T, Out, std::remove_const_t<std::remove_pointer_t<decltype(panels)>>>{x, panels, bias, out, tokens, inputs, outputs, activation}); };
    switch (weight.kind) {
        case Weight::dense: return with(static_cast<const Dense<T>*>(weight.panels));
        case Weight::four: return with(static_cast<const Four*>(weight.panels));
        case Weight::eight: return with(static_cast<const Eight*>(weight.panels));
    }
}

}  // namespace

// Whether products in bfloat16 are done on tiles.
extern "C" int64_t has_tiles() {
#ifdef HAS_TILES
    return tiles_allowed();
#else
    return 0;
#endif
}

extern "C" void linear_float32(const float* x, const Weight* weight, const float* bias, float* out, int64_t tokens, int64_t inputs, int64_t outputs) {
    linear(x, *weight, bias, out, tokens, inputs, outputs);
}

extern "C" void linear_bfloat16(const Bfloat16* x, const Weight* weight, const Bfloat16* bias, Bfloat16* out, int64_t tokens, int64_t inputs, int64_t outputs) {
    linear(x, *weight, bias, out, tokens, inputs, outputs);
}

extern "C" void linear_gelu_float32(const float* x, const Weight* weight, const float* bias, float* out, int64_t tokens, int64_t inputs, int64_t outputs) {
    linear(x, *weight, bias, out, tokens, inputs, outputs, Activation::gelu);
}

extern "C" void linear_gelu_bfloat16(const Bfloat16* x, const Weight* weight, const Bfloat16* bias, Bfloat16* out, int64_t tokens, int64_t inputs, int64_t outputs) {
    linear(x, *weight, bias, out, tokens, inputs, outputs, Activation::gelu);
}

extern "C" void linear_gelu_tanh_float32(const float* x, const Weight* weight, const float* bias, float* out, int64_t tokens, int64_t inputs, int64_t outputs) {
    linear(x, *weight, bias, out, tokens, inputs, outputs, Activation::gelu_tanh);
}

extern "C" void linear_gelu_tanh_bfloat16(const Bfloat16* x, const Weight* weight, const Bfloat16* bias, Bfloat16* out, int64_t tokens, int64_t inputs, int64_t outputs) {
    linear(x, *weight, bias, out, tokens, inputs, outputs, Activation::gelu_tanh);
}

// The head: logits keep their sums' precision.
extern "C" void head_float32(const float* x, const Weight* weight, float* out, int64_t tokens, int64_t inputs, int64_t outputs) {
    linear<float, float>(x, *weight, nullptr, out, tokens, inputs, outputs);
}

extern "C" void head_bfloat16(const Bfloat16* x, const Weight* weight, float* out, int64_t tokens, int64_t inputs, int64_t outputs) {
    linear<Bfloat16, float>(x, *weight, nullptr, out, tokens, inputs, outputs);
}
