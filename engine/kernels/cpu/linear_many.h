// The matrix product for many tokens, as fast as the processor multiplies: a piece of the tokens and a group of the weights' panels stay in
// the second cache while their blocks of sums are in registers. With few tokens the weights' way from memory decides instead: linear.cpp.
#pragma once

#include <omp.h>

#include <algorithm>
#include <vector>

#include "linear.h"

constexpr int kManyRows = kRegisters == 32 ? 14 : 6;  // tokens whose sums are in registers at once, two vectors each
constexpr int64_t kFewTokens = 32;
constexpr int64_t kStep = 2 * kManyRows;      // tokens that meet a group of panels before the next ones do
constexpr int64_t kPieceBytes = 512 * 1024;   // of a piece of the tokens
constexpr int64_t kMinPiece = 6 * kManyRows;  // tokens; fewer would read the weights too often
constexpr int64_t kGroupBytes = 192 * 1024;   // of a group of panels
constexpr int64_t kTasksPerThread = 8;        // at least, so that the threads finish together

// sums[m] += x[m] . two panels of weights, float [inputs][lanes] each
template <int M>
inline void many_sums(const float* x, int64_t stride, const float* w0, const float* w1, int64_t inputs, Vec (*sums)[2]) {
    Vec acc[M][2] = {};
    for (int64_t k = 0; k < inputs; k++) {
        Vec b0 = load(w0 + k * kPanel), b1 = load(w1 + k * kPanel);
#pragma GCC unroll 14
        for (int m = 0; m < M; m++) {
            acc[m][0] += x[m * stride + k] * b0;
            acc[m][1] += x[m * stride + k] * b1;
        }
    }
#pragma GCC unroll 14
    for (int m = 0; m < M; m++) sums[m][0] = acc[m][0], sums[m][1] = acc[m][1];
}

template <int M>
inline void many_rest(int64_t count, const float* x, int64_t stride, const float* w0, const float* w1, int64_t inputs, Vec (*sums)[2]) {
    if (count == M) return many_sums<M>(x, stride, w0, w1, inputs, sums);
    if constexpr (M > 1) many_rest<M - 1>(count, x, stride, w0, w1, inputs, sums);
}

// `count` blocks of panels as floats, [inputs][lanes]: where they lie, or widened into the scratch.
inline const float* float_panels(const Dense<float>* blocks, int64_t, std::vector<float>&) {
    return reinterpret_cast<const float*>(blocks);
}

template <class Block>
const float* float_panels(const Block* blocks, int64_t count, std::vector<float>& scratch) {
    float* panels = room_in(scratch, count * Block::kInputs * kPanel);
    for (int64_t i = 0; i < count; i++) widen(blocks[i], reinterpret_cast<Vec*>(panels) + i * Block::kInputs);
    return panels;
}

// The sums go to lines in as many pages as there are tokens, which no processor asks for by itself.
template <class Out>
inline void fetch_rows(Out* out, int64_t stride, int64_t count) {
    for (int64_t m = 0; m < count; m++)
        for (size_t byte = 0; byte < kPair * sizeof(Out); byte += 64) __builtin_prefetch(reinterpret_cast<char*>(out + m * stride) + byte, 1);
}

// Tokens first to last against one pair of panels. x float [tokens, stride]; inputs as padded in the panels.
template <class T, class Out, class Block>
void many_pair(const Product<T, Out, Block>& p, const float* x, int64_t stride, const float* panels, int64_t inputs, int64_t pair, int64_t first, int64_t last) {
    for (int64_t m = first; m < last; m += kManyRows) {
        Vec sums[kManyRows][2];
        int64_t count = std::min<int64_t>(kManyRows, last - m);
        fetch_rows(p.out + m * p.outputs + pair * kPair, p.outputs, count);
        many_rest<kManyRows>(count, x + m * stride, stride, panels, panels + inputs * kPanel, inputs, sums);
        for (int64_t i = 0; i < count; i++)
            for (int half = 0; half < 2; half++)
                if (pair * kPair + half * kPanel < p.outputs) p.put(m + i, pair * kPair + half * kPanel, sums[i][half]);
    }
}

// How the work is cut: tokens a piece and pairs of panels a group.
struct Cut {
    int64_t piece, group;
};

inline Cut cut_work(int64_t tokens, int64_t stride, int64_t pairs) {
    const int64_t wanted = omp_get_num_threads() * kTasksPerThread, column = int64_t(sizeof(float)) * stride;
    int64_t most = std::max(std::min(kPieceBytes / column, tokens * pairs / wanted), kMinPiece);
    int64_t pieces = (tokens + most - 1) / most;
    int64_t piece = ((tokens + pieces - 1) / pieces + kManyRows - 1) / kManyRows * kManyRows;
    int64_t group = std::min(kGroupBytes / (column * kPair), pieces * pairs / wanted);
    return {piece, std::max<int64_t>(group, 1)};
}

// Called by every thread of a team, which shares out the work. x float [tokens, stride].
template <class T, class Out, class Block>
void linear_many(const Product<T, Out, Block>& p, const float* x, int64_t stride) {
    const int64_t pairs = num_pairs(p.outputs), blocks = num_blocks<Block>(p.inputs), inputs = blocks * Block::kInputs;
    const Cut cut = cut_work(p.tokens, stride, pairs);
    static thread_local std::vector<float> scratch;  // kept from call to call
#pragma omp for collapse(2) schedule(dynamic)
    for (int64_t piece = 0; piece < p.tokens; piece += cut.piece)
        for (int64_t group = 0; group < pairs; group += cut.group) {
            const int64_t count = std::min(cut.group, pairs - group), last = std::min(p.tokens, piece + cut.piece);
            const float* panels = float_panels(p.panel(2 * group), 2 * count * blocks, scratch);
            for (int64_t first = piece; first < last; first += kStep)
                for (int64_t i = 0; i < count; i++)
                    many_pair(p, x, stride, panels + i * inputs * kPair, inputs, group + i, first, std::min(last, first + kStep));
        }
}
