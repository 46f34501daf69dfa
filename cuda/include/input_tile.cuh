// Packed inputs cut into tiles of tokens.
#pragma once

#include "types.cuh"

// Some tokens of one input. 16 bytes.
struct InputTile {
  int start, num_tokens;  // of the input
  int first;              // of the tile in the input
  int head;               // for whoever works on one
};
