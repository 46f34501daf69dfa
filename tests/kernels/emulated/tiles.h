// AMX's tiles as plain loops (Intel SDM volume 2, LDTILECFG to TILEZERO): what is built on them is tested on processors without them.
// A tile that is used in a shape it was not configured for ends the process, as it would there.
#pragma once

#define HAS_TILES

#include <cstdint>
#include <cstring>

#include "vec.h"

// The compiler's header has the names already, and ends where they are used.
#define _tile_loadconfig load_config
#define _tile_release release_tiles
#define _tile_zero zero_tile
#define _tile_loadd load_tile
#define _tile_stored store_tile
#define _tile_dpbf16ps multiply_tiles

struct Tile {
    int rows = 0, row_bytes = 0;
    unsigned char bytes[16][64] = {};

    template <class T>
    T& at(int row, int column) {
        return reinterpret_cast<T*>(bytes[row])[column];
    }
};

inline thread_local Tile tiles[8];

inline void require(bool holds) {
    if (!holds) __builtin_trap();
}

inline bool tiles_allowed() {
    return true;
}

inline void _tile_loadconfig(const void* config) {
    const unsigned char* bytes = static_cast<const unsigned char*>(config);
    require(bytes[0] == 1);
    for (int t = 0; t < 8; t++) {
        uint16_t row_bytes;
        std::memcpy(&row_bytes, bytes + 16 + 2 * t, sizeof row_bytes);
        tiles[t] = {};
        tiles[t].rows = bytes[48 + t], tiles[t].row_bytes = row_bytes;
        require(tiles[t].rows <= 16 && row_bytes <= 64);
    }
}

inline void _tile_release() {
    for (Tile& tile : tiles) tile = {};
}

inline void _tile_zero(int t) {
    require(tiles[t].rows > 0);
    std::memset(tiles[t].bytes, 0, sizeof tiles[t].bytes);
}

inline void _tile_loadd(int t, const void* from, int64_t stride) {
    _tile_zero(t);
    for (int row = 0; row < tiles[t].rows; row++)
        std::memcpy(tiles[t].bytes[row], static_cast<const char*>(from) + row * stride, tiles[t].row_bytes);
}

inline void _tile_stored(int t, void* to, int64_t stride) {
    require(tiles[t].rows > 0);
    for (int row = 0; row < tiles[t].rows; row++)
        std::memcpy(static_cast<char*>(to) + row * stride, tiles[t].bytes[row], tiles[t].row_bytes);
}

// sums [m][n] += the pairs of a's row m times the pairs of b's column n.
inline void _tile_dpbf16ps(int sums, int a, int b) {
    require(tiles[sums].rows == tiles[a].rows && tiles[a].row_bytes == 4 * tiles[b].rows && tiles[sums].row_bytes == tiles[b].row_bytes);
    for (int m = 0; m < tiles[a].rows; m++)
        for (int k = 0; k < tiles[b].rows; k++)
            for (int n = 0; n < tiles[b].row_bytes / 4; n++)
                for (int half = 0; half < 2; half++)
                    tiles[sums].at<float>(m, n) += to_float(tiles[a].at<Bfloat16>(m, 2 * k + half)) * to_float(tiles[b].at<Bfloat16>(k, 2 * n + half));
}
