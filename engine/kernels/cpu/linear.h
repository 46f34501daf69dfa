// A weight [out, in] as it is laid out for the matrix products here: panels of as many outputs as there are lanes, each [in] in blocks
// (blocks.h). Panels come in pairs, so outputs are padded with zeros to a multiple of two vectors, and inputs to whole blocks.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "blocks.h"
#include "gelu.h"
#include "vec.h"

constexpr int kPanel = kLanes;
constexpr int kPair = 2 * kPanel;  // outputs that one block of work computes

inline int64_t num_pairs(int64_t outputs) {
    return (outputs + kPair - 1) / kPair;
}

// Blocks of a panel.
template <class Block>
inline int64_t num_blocks(int64_t inputs) {
    return (inputs + Block::kInputs - 1) / Block::kInputs;
}

constexpr size_t kLine = 64;  // bytes of a cache line

// Room for `count` numbers in memory that is kept, from the start of a line on: vectors that lie in two are slow.
template <class T>
inline T* room_in(std::vector<T>& kept, size_t count) {
    kept.resize(std::max(kept.size(), count + kLine / sizeof(T)));
    return reinterpret_cast<T*>((reinterpret_cast<uintptr_t>(kept.data()) + kLine - 1) / kLine * kLine);
}

// A block as vectors, one an input.
template <class Block>
inline void widen(const Block& block, Vec* to) {
#pragma GCC unroll 32
    for (int i = 0; i < Block::kInputs; i++) to[i] = block.weights(i);
}

// A weight as it comes from outside; the numbers are cpu_linear.py's.
struct Weight {
    enum Kind : int64_t { dense, four, eight } kind;
    const void* panels;
};

// One matrix product: out[m, n] = activation(sum_k x[m, k] w[n, k] + bias[n]).
template <class T, class Out, class Block>
struct Product {
    const T* x;           // [tokens, inputs]
    const Block* weight;  // laid out as above
    const T* bias;        // [outputs] or null
    Out* out;             // [tokens, outputs]
    int64_t tokens, inputs, outputs;
    Activation activation = Activation::none;

    const Block* panel(int64_t index) const { return weight + index * num_blocks<Block>(inputs); }

    // One vector of outputs of one token, from output `first` on.
    void put(int64_t token, int64_t first, Vec sums) const {
        Out* to = out + token * outputs + first;
        int64_t lanes = outputs - first;
        if (lanes >= kLanes) return store(to, activated(bias ? sums + load(bias + first) : sums, activation));
        for (int64_t i = 0; i < lanes; i++) sums[i] += bias ? to_float(bias[first + i]) : 0.f;
        sums = activated(sums, activation);
        for (int64_t i = 0; i < lanes; i++) from_float(to + i, sums[i]);
    }
};
