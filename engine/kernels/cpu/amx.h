// Blocks of 32 tokens by 32 outputs on AMX's tiles: each step multiplies 16 x 32 by 32 x 16 bfloat16 numbers.
//
// Few tokens stay where they are and the weights pass by, as fast as the memory gives them. Many are laid out anew in the order in which
// tiles are loaded, so that a tile's rows lie in lines that follow each other, and pass by a group of weights that stays in the second cache.
#pragma once

#include "tiles.h"

#ifdef HAS_TILES

#include <omp.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "linear.h"

constexpr int kTileRows = 16;
constexpr int kTileInputs = 32;
constexpr int kBlockTokens = 2 * kTileRows;
constexpr int64_t kTileFewTokens = 2 * kBlockTokens;
constexpr int64_t kTileGroupBytes = 768 * 1024;  // of weights; processors with AMX have a second cache of 2 MiB

template <class Out>
using TileProduct = Product<Bfloat16, Out, Dense<Bfloat16>>;

struct alignas(64) TileConfig {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {};
    uint8_t rows[16] = {};
};

// Where a block's tokens lie, counted in numbers: from one token to the next, and from 32 of their inputs to the next 32.
struct BlockTokens {
    const Bfloat16* from;
    int64_t next_token, next_inputs;
};

// Tiles 0 to 3 hold sums (2 x 2 blocks), 4 and 5 tokens, 6 and 7 weights.
inline void configure_tiles(int64_t tokens) {
    TileConfig config;
    uint8_t rows[2] = {uint8_t(std::min<int64_t>(tokens, kTileRows)), uint8_t(std::max<int64_t>(tokens - kTileRows, 1))};
    for (int tile = 0; tile < 8; tile++) config.row_bytes[tile] = 64;
    for (int tile = 0; tile < 4; tile++) config.rows[tile] = rows[tile / 2];
    for (int half = 0; half < 2; half++) config.rows[4 + half] = rows[half], config.rows[6 + half] = kTileRows;
    _tile_loadconfig(&config);
}

template <class Out>
void put_block(const TileProduct<Out>& p, int64_t pair, int64_t first, int64_t tokens, const float (*sums)[kPair]) {
    for (int64_t m = 0; m < tokens; m++)
        for (int half = 0; half < 2; half++)
            if (pair * kPair + half * kPanel < p.outputs) p.put(first + m, pair * kPair + half * kPanel, load(&sums[m][half * kPanel]));
}

// A tile of weights is asked for early, because loads of tiles are not guessed ahead.
inline void fetch_ahead(const Bfloat16* tile) {
    constexpr int kAhead = 6 * 1024, kTileBytes = 1024;
    const char* from = reinterpret_cast<const char*>(tile) + kAhead;
    for (int byte = 0; byte < kTileBytes; byte += 64) __builtin_prefetch(from + byte);
}

// Two panels as tiles take them, [2][inputs / 2][lanes][2].
template <class Out>
const Bfloat16* panels_of(const TileProduct<Out>& p, int64_t pair) {
    return reinterpret_cast<const Bfloat16*>(p.panel(2 * pair));
}

// The sums of up to 32 tokens, of two tiles if `tall`, with one pair of panels; configure_tiles comes before.
inline void tile_sums(const BlockTokens& x, bool tall, const Bfloat16* w0, const Bfloat16* w1, int64_t inputs, bool fetches, float (*sums)[kPair]) {
    const int64_t row_bytes = x.next_token * sizeof(Bfloat16);
    const Bfloat16* from = x.from;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int64_t k = 0; k < inputs * kPanel; k += kTileInputs * kPanel, from += x.next_inputs) {
        if (fetches) fetch_ahead(w0 + k), fetch_ahead(w1 + k);
        _tile_loadd(6, w0 + k, 64);
        _tile_loadd(7, w1 + k, 64);
        _tile_loadd(4, from, row_bytes);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        if (!tall) continue;
        _tile_loadd(5, from + kTileRows * x.next_token, row_bytes);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, &sums[0][0], sizeof sums[0]);
    _tile_stored(1, &sums[0][kPanel], sizeof sums[0]);
    if (!tall) return;
    _tile_stored(2, &sums[kTileRows][0], sizeof sums[0]);
    _tile_stored(3, &sums[kTileRows][kPanel], sizeof sums[0]);
}

template <class Out>
void few_block(const TileProduct<Out>& p, const Bfloat16* panels, int64_t pair, int64_t first, int64_t tokens) {
    alignas(64) float sums[kBlockTokens][kPair];
    const BlockTokens x = {p.x + first * p.inputs, p.inputs, kTileInputs};
    tile_sums(x, tokens > kTileRows, panels, panels + p.inputs * kPanel, p.inputs, first == 0, sums);
    put_block(p, pair, first, tokens, sums);
}

// A pair of panels meets all tokens before the next one does. Called by every thread of a team.
template <class Out>
void few_on_tiles(const TileProduct<Out>& p) {
    const int64_t whole = p.tokens / kBlockTokens * kBlockTokens;
#pragma omp for schedule(static)
    for (int64_t pair = 0; pair < num_pairs(p.outputs); pair++) {
        const Bfloat16* panels = panels_of(p, pair);
        if (whole) configure_tiles(kBlockTokens);
        for (int64_t first = 0; first < whole; first += kBlockTokens) few_block(p, panels, pair, first, kBlockTokens);
        if (whole == p.tokens) continue;
        configure_tiles(p.tokens - whole);
        few_block(p, panels, pair, whole, p.tokens - whole);
    }
}

inline int64_t in_blocks(int64_t tokens) {
    return (tokens + kBlockTokens - 1) / kBlockTokens * kBlockTokens;
}

// x [tokens, inputs] -> [tokens / 32][inputs / 32][32][32], the last block filled up with zeros. Called by every thread of a team.
inline void pack_tokens(const Bfloat16* x, int64_t tokens, int64_t inputs, Bfloat16* packed) {
    constexpr size_t kBytes = kTileInputs * sizeof(Bfloat16);
#pragma omp for schedule(static)
    for (int64_t first = 0; first < tokens; first += kBlockTokens)
        for (int64_t m = 0; m < kBlockTokens; m++)
            for (int64_t k = 0; k < inputs; k += kTileInputs) {
                Bfloat16* to = packed + first * inputs + k * kBlockTokens + m * kTileInputs;
                if (first + m < tokens)
                    std::memcpy(to, x + (first + m) * inputs + k, kBytes);
                else
                    std::memset(to, 0, kBytes);
            }
}

// A thread's share of the panels, group by group; all tokens pass by one group before the next. Called by every thread of a team.
template <class Out>
void many_on_tiles(const TileProduct<Out>& p, const Bfloat16* packed) {
    const int64_t pairs = num_pairs(p.outputs), threads = omp_get_num_threads(), me = omp_get_thread_num(), last = pairs * (me + 1) / threads;
    const int64_t size = p.inputs * kPair, group = std::max<int64_t>(1, kTileGroupBytes / (size * int64_t(sizeof(Bfloat16))));
    alignas(64) float sums[kBlockTokens][kPair];
    configure_tiles(kBlockTokens);
    for (int64_t begin = pairs * me / threads; begin < last; begin += group) {
        const int64_t count = std::min(group, last - begin);
        const Bfloat16* panels = panels_of(p, begin);
        for (int64_t first = 0; first < p.tokens; first += kBlockTokens)
            for (int64_t i = 0; i < count; i++) {
                const BlockTokens x = {packed + first * p.inputs, kTileInputs, kBlockTokens * kTileInputs};
                tile_sums(x, true, panels + i * size, panels + i * size + size / 2, p.inputs, true, sums);
                put_block(p, begin + i, first, std::min<int64_t>(kBlockTokens, p.tokens - first), sums);
            }
    }
}

template <class Out>
void product_on_tiles(const TileProduct<Out>& p) {
    static thread_local std::vector<Bfloat16> scratch;  // the tokens as they are packed, kept from call to call
    const bool many = p.tokens > kTileFewTokens;
    Bfloat16* packed = many ? room_in(scratch, in_blocks(p.tokens) * p.inputs) : nullptr;
#pragma omp parallel
    {
        if (many) {
            pack_tokens(p.x, p.tokens, p.inputs, packed);
            many_on_tiles(p, packed);
        } else {
            few_on_tiles(p);
        }
        _tile_release();
    }
}

#endif
