// Rotary embedding (arXiv 2104.09864) in its half-split form.
#pragma once

#include "vectors.cuh"

// 8 channels of a head's first half and their partners of the second, by the angles of the head's position.
DEVICE void rotate(float (&low)[LANES], float (&high)[LANES], const float (&cosines)[LANES], const float (&sines)[LANES]) {
#pragma unroll
  for (int i = 0; i < LANES; i++) {
    float a = low[i], b = high[i];
    low[i] = a * cosines[i] - b * sines[i];
    high[i] = b * cosines[i] + a * sines[i];
  }
}
