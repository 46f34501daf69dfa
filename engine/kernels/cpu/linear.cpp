// Matrix products of packed tokens with weights laid out once (linear.h), for any number of tokens: with one the weights stream at memory
// speed, with many the same panels stay in the cache while all tokens pass. Threads share out the panels.
#include "linear.h"

#include <algorithm>
#include <vector>

#include "amx.h"
#include "linear_many.h"

namespace {

constexpr int kRows = kRegisters == 32 ? 12 : 6;  // tokens whose sums are in registers at once, two vectors each
constexpr size_t kLine = 64;        // bytes of a cache line
constexpr int64_t kVectorRows = 4;  // up to so many tokens AMX gains nothing over vectors

// What one vector of weights adds to the sums of M tokens: a channel at a time for float, two for bfloat16.
template <int M>
inline void multiply(const float* x, int64_t stride, const float* w0, const float* w1, Vec (*acc)[2]) {
    Vec b0 = load(w0), b1 = load(w1);
#pragma GCC unroll 12
    for (int m = 0; m < M; m++) {
        acc[m][0] += x[m * stride] * b0;
        acc[m][1] += x[m * stride] * b1;
    }
}

// The even channel of a pair is the lower half of its 32 bits; a float's upper half is its bfloat16.
inline Vec even(UintVec pair) {
    return (Vec)(pair << 16);
}

inline Vec odd(UintVec pair) {
    return (Vec)(pair & 0xffff0000u);
}

template <int M>
inline void multiply(const float* x, int64_t stride, const Bfloat16* w0, const Bfloat16* w1, Vec (*acc)[2]) {
    UintVec p0 = *reinterpret_cast<const UintVec*>(w0), p1 = *reinterpret_cast<const UintVec*>(w1);
    Vec even0 = even(p0), odd0 = odd(p0), even1 = even(p1), odd1 = odd(p1);
#pragma GCC unroll 12
    for (int m = 0; m < M; m++) {
        acc[m][0] += x[m * stride] * even0;
        acc[m][1] += x[m * stride] * even1;
        acc[m][0] += x[m * stride + 1] * odd0;
        acc[m][1] += x[m * stride + 1] * odd1;
    }
}

template <class T>
constexpr int kChannels = sizeof(float) / sizeof(T);  // input channels in one vector of weights

// x float [tokens, padded inputs]: M tokens from `first` on, against one pair of panels.
//
// Each block of tokens asks for its share of the next pair, so that the memory works all the time and not for the first block only.
template <int M, class T, class Out>
void vector_block(const Product<T, Out>& p, const float* x, int64_t stride, int64_t pair, int64_t first) {
    const T *w0 = p.panel(2 * pair), *w1 = p.panel(2 * pair + 1);
    const float* from = x + first * stride;
    const char* next = reinterpret_cast<const char*>(p.panel(2 * pair + 2)) + 2 * sizeof(Vec) * (first * p.inputs / p.tokens / kChannels<T>);
    const int64_t asks = M * p.inputs / p.tokens;  // counted in channels
    Vec acc[M][2] = {};
    for (int64_t k = 0; k < p.inputs; k += kChannels<T>) {
        if (k < asks) {
            for (size_t byte = 0; byte < 2 * sizeof(Vec); byte += kLine) __builtin_prefetch(next + byte, 0, 2);
            next += 2 * sizeof(Vec);
        }
        multiply<M>(from + k, stride, w0 + k * kPanel, w1 + k * kPanel, acc);
    }
    for (int m = 0; m < M; m++)
        for (int half = 0; half < 2; half++)
            if (pair * kPair + half * kPanel < p.outputs) p.put(first + m, pair * kPair + half * kPanel, acc[m][half]);
}

// Up to M tokens.
template <int M, class T, class Out>
void vector_blocks(int64_t count, const Product<T, Out>& p, const float* x, int64_t stride, int64_t pair, int64_t first) {
    if (count == M) return vector_block<M>(p, x, stride, pair, first);
    if constexpr (M > 1) vector_blocks<M - 1>(count, p, x, stride, pair, first);
}

// Tokens of the next block: as many as fit, or where few fit equal shares, because a block of one or two waits for its sums.
inline int64_t next_block(int64_t left) {
    if (kRegisters == 32) return std::min<int64_t>(left, kRows);
    int64_t blocks = (left + kRows - 1) / kRows;
    return (left + blocks - 1) / blocks;
}

template <class T, class Out>
void vector_pair(const Product<T, Out>& p, const float* x, int64_t stride, int64_t pair) {
    for (int64_t first = 0, count; first < p.tokens; first += count) {
        count = next_block(p.tokens - first);
        vector_blocks<kRows>(count, p, x, stride, pair, first);
    }
}

template <class Out>
void linear(const Product<float, Out>& p) {
#pragma omp parallel
    if (p.tokens > kFewTokens) {
        linear_many(p, p.x, p.inputs);
    } else {
#pragma omp for schedule(static)
        for (int64_t pair = 0; pair < num_pairs(p.outputs); pair++) vector_pair(p, p.x, p.inputs, pair);
    }
}

template <class Out>
bool linear_on_tiles(const Product<Bfloat16, Out>& p) {
#ifdef HAS_TILES
    if (p.tokens <= kVectorRows || p.inputs % kTileInputs || !tiles_allowed()) return false;
    product_on_tiles(p);
    return true;
#else
    (void)p;
    return false;
#endif
}

template <class Out>
void linear(const Product<Bfloat16, Out>& p) {
    if (linear_on_tiles(p)) return;
    static thread_local std::vector<float> scratch;  // the tokens as float, kept from call to call
    int64_t stride = (p.inputs + 1) / 2 * 2;
    scratch.resize(std::max<size_t>(scratch.size(), p.tokens * stride));
    float* widened = scratch.data();
#pragma omp parallel
    {
#pragma omp for schedule(static)
        for (int64_t m = 0; m < p.tokens; m++) {
            for (int64_t k = 0; k < p.inputs; k++) widened[m * stride + k] = to_float(p.x[m * p.inputs + k]);
            if (stride != p.inputs) widened[m * stride + p.inputs] = 0;
        }
        if (p.tokens > kFewTokens) {
            linear_many(p, widened, stride);
        } else {
#pragma omp for schedule(static)
            for (int64_t pair = 0; pair < num_pairs(p.outputs); pair++) vector_pair(p, widened, stride, pair);
        }
    }
}

}  // namespace

// weight [outputs, inputs] -> packed; the sizes are those of linear.h.
extern "C" void pack_weight_float32(const float* weight, float* packed, int64_t outputs, int64_t inputs) {
#pragma omp parallel for schedule(static)
    for (int64_t panel = 0; panel < 2 * num_pairs(outputs); panel++)
        for (int64_t k = 0; k < inputs; k++)
            for (int64_t i = 0; i < kPanel; i++) {
                int64_t n = panel * kPanel + i;
                packed[(panel * inputs + k) * kPanel + i] = n < outputs ? weight[n * inputs + k] : 0;
            }
}

extern "C" void pack_weight_bfloat16(const Bfloat16* weight, Bfloat16* packed, int64_t outputs, int64_t inputs) {
    int64_t pairs = (inputs + 1) / 2;
#pragma omp parallel for schedule(static)
    for (int64_t panel = 0; panel < 2 * num_pairs(outputs); panel++)
        for (int64_t k = 0; k < 2 * pairs; k++)
            for (int64_t i = 0; i < kPanel; i++) {
                int64_t n = panel * kPanel + i;
                packed[((panel * pairs + k / 2) * kPanel + i) * 2 + k % 2] = n < outputs && k < inputs ? weight[n * inputs + k] : Bfloat16{0};
            }
}

extern "C" void linear_float32(const float* x, const float* weight, const float* bias, float* out, int64_t tokens, int64_t inputs, int64_t outputs) {
    linear(Product<float, float>{x, weight, bias, out, tokens, inputs, outputs});
}

extern "C" void linear_bfloat16(const Bfloat16* x, const Bfloat16* weight, const Bfloat16* bias, Bfloat16* out, int64_t tokens, int64_t inputs,
                                int64_t outputs) {
    linear(Product<Bfloat16, Bfloat16>{x, weight, bias, out, tokens, inputs, outputs});
}

extern "C" void linear_gelu_float32(const float* x, const float* weight, const float* bias, float* out, int64_t tokens, int64_t inputs, int64_t outputs) {
    linear(Product<float, float>{x, weight, bias, out, tokens, inputs, outputs, Activation::gelu});
}

extern "C" void linear_gelu_tanh_float32(const float* x, const float* weight, const float* bias, float* out, int64_t tokens, int64_t inputs,
                                     int64_t outputs) {
    linear(Product<float, float>{x, weight, bias, out, tokens, inputs, outputs, Activation::gelu_tanh});
}

extern "C" void linear_gelu_bfloat16(const Bfloat16* x, const Bfloat16* weight, const Bfloat16* bias, Bfloat16* out, int64_t tokens, int64_t inputs, int64_t outputs) {
    linear(Product<Bfloat16, Bfloat16>{x, weight, bias, out, tokens, inputs, outputs, Activation::gelu});
}

extern "C" void linear_gelu_tanh_bfloat16(const Bfloat16* x, const Bfloat16* weight, const Bfloat16* bias, Bfloat16* out, int64_t tokens, int64_t inputs,
                                     int64_t outputs) {
    linear(Product<Bfloat16, Bfloat16>{x, weight, bias, out, tokens, inputs, outputs, Activation::gelu_tanh});
}

// The head: logits keep their sums' precision.
extern "C" void head_float32(const float* x, const float* weight, float* out, int64_t tokens, int64_t inputs, int64_t outputs) {
    linear(Product<float, float>{x, weight, nullptr, out, tokens, inputs, outputs});
}

extern "C" void head_bfloat16(const Bfloat16* x, const Bfloat16* weight, float* out, int64_t tokens, int64_t inputs, int64_t outputs) {
    linear(Product<Bfloat16, float>{x, weight, nullptr, out, tokens, inputs, outputs});
}
