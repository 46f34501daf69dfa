// Weights [outputs, inputs] to panels as the products take them (linear.h); the sizes of what is packed are theirs.
#include "linear.h"

namespace {

// Calls pack(panel, first output) for each of the panels.
template <class Pack>
void each_panel(int64_t outputs, Pack pack) {
#pragma omp parallel for schedule(static)
    for (int64_t panel = 0; panel < 2 * num_pairs(outputs); panel++) pack(panel, panel * kPanel);
}

template <class T>
void pack_dense(const T* weight, T* packed, int64_t outputs, int64_t inputs) {
    constexpr int kInputs = Dense<T>::kInputs;
    const int64_t blocks = num_blocks<Dense<T>>(inputs);
    each_panel(outputs, [&](int64_t panel, int64_t first) {
        for (int64_t k = 0; k < kInputs * blocks; k++)
            for (int64_t i = 0; i < kPanel; i++) {
                int64_t n = first + i;
                packed[((panel * blocks + k / kInputs) * kPanel + i) * kInputs + k % kInputs] = n < outputs && k < inputs ? weight[n * inputs + k] : T{};
            }
    });
}

// Quants are bytes, of which a word takes as many bits as it has for each. Calls add(block, lane, place among the scales) for what else there is.
template <class Block, class Add>
void pack_blocks(const uint8_t* quants, const float* scales, Block* packed, int64_t outputs, int64_t inputs, Add add) {
    constexpr int kInputs = Block::kInputs, kWordInputs = Block::kWordInputs;
    const int64_t blocks = num_blocks<Block>(inputs);
    each_panel(outputs, [&](int64_t panel, int64_t first) {
        for (int64_t block = 0; block < blocks; block++) {
            Block& to = packed[panel * blocks + block];
            to = Block{};
            for (int64_t i = 0; i < kPanel && first + i < outputs; i++) {
                const int64_t from = (first + i) * blocks + block;
                to.scale[i] = scales[from];
                add(to, i, from);
                for (int k = 0; k < kInputs; k++) to.words[k / kWordInputs][i] |= uint32_t(quants[from * kInputs + k]) << 32 / kWordInputs * (k % kWordInputs);
            }
        }
    });
}

}  // namespace

extern "C" void pack_weight_float32(const float* weight, float* packed, int64_t outputs, int64_t inputs) {
    pack_dense(weight, packed, outputs, inputs);
}

extern "C" void pack_weight_bfloat16(const Bfloat16* weight, Bfloat16* packed, int64_t outputs, int64_t inputs) {
    pack_dense(weight, packed, outputs, inputs);
}

// quants [outputs, inputs] below 16; scales and leasts [outputs, inputs / 32].
extern "C" void pack_four(const uint8_t* quants, const float* scales, const float* leasts, Four* packed, int64_t outputs, int64_t inputs) {
    pack_blocks(quants, scales, packed, outputs, inputs, [&](Four& to, int64_t lane, int64_t from) { to.least[lane] = leasts[from]; });
}

// quants [outputs, inputs]; scales [outputs, inputs / 16].
extern "C" void pack_eight(const uint8_t* quants, const float* scales, Eight* packed, int64_t outputs, int64_t inputs) {
    pack_blocks(quants, scales, packed, outputs, inputs, [](Eight&, int64_t, int64_t) {});
}
