// Numbers as activations are stored, their arithmetic in float, and what a function may answer.

#pragma once

#include <cstdint>

using Int = int64_t;

enum Status : int { OK, INDEX_OUT_OF_RANGE, BAD_SIZES, NO_MEMORY };  // as native.py tells them

using bf16 = uint16_t;

static inline float get(float x) { return x; }
static inline float get(bf16 x) { return __builtin_bit_cast(float, uint32_t(x) << 16); }

static inline void put(float &to, float x) { to = x; }
static inline void put(bf16 &to, float x) {  // to the nearest, ties to even; the NaNs of arithmetic stay NaN
    uint32_t bits = __builtin_bit_cast(uint32_t, x);
    to = bf16((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}
