// What the panels of a weight are made of (linear.h): blocks of some inputs of as many outputs as there are lanes, an output a lane. Dense, or
// quantised as in a GGUF file, which the products widen on their way.
//
// A quantised weight is widened to bit for bit the file's number in float32: scale * quant is exact, because in all its formats the two have at
// most 24 bits together, and the sum with the least value is rounded once. Tiles take bfloat16, and get dense weights.
//
// weights(i): of input i.
#pragma once

#include "vec.h"

template <class T>
struct Dense;

template <>
struct Dense<float> {
    static constexpr int kInputs = 1;
    Vec all;

    Vec weights(int) const { return all; }
};

// A pair of inputs side by side: what a dot-product instruction and an AMX tile both take.
template <>
struct Dense<Bfloat16> {
    static constexpr int kInputs = 2;
    UintVec pairs;

    // The even input is the lower half of 32 bits; a float's upper half is its bfloat16.
    Vec weights(int i) const { return (Vec)(i == 0 ? pairs << 16 : pairs & 0xffff0000u); }
};

// 4 bits a weight: scale * quant + least. A word has eight inputs of an output, from its low bits on.
struct Four {
    static constexpr int kInputs = 32, kWordInputs = 8;
    Vec scale, least;
    UintVec words[kInputs / kWordInputs];

    Vec weights(int i) const {
        UintVec quants = words[i / kWordInputs] >> 4 * (i % kWordInputs) & 15;
        return __builtin_convertvector((IntVec)quants, Vec) * scale + least;
    }
};

// 8 bits a weight, with a sign: scale * quant. A word has four inputs of an output, from its low bits on.
struct Eight {
    static constexpr int kInputs = 16, kWordInputs = 4;
    Vec scale;
    UintVec words[kInputs / kWordInputs];

    Vec weights(int i) const {
        IntVec quants = (IntVec)(words[i / kWordInputs] << (24 - i % kWordInputs * 8)) >> 24;
        return __builtin_convertvector(quants, Vec) * scale;
    }
};
