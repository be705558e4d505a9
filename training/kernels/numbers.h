// Numbers as activations are stored, their arithmetic in float, and what a function may answer.

#pragma once

#include <cstdint>

#ifdef __AVX2__
#include <immintrin.h>
#endif

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

// Sixteen numbers, of which compilers make the widest registers that the processor has.
using Wide = float __attribute__((vector_size(64)));

static inline Wide wide(const float *x) {
    Wide out;
    __builtin_memcpy(&out, x, sizeof out);
    return out;
}

static inline Wide wide(const bf16 *x) {
    using Stored = bf16 __attribute__((vector_size(32)));
    using Bits = uint32_t __attribute__((vector_size(64)));
    Stored stored;
    __builtin_memcpy(&stored, x, sizeof stored);
    Bits bits = __builtin_convertvector(stored, Bits) << 16;
    Wide out;
    __builtin_memcpy(&out, &bits, sizeof out);
    return out;
}

static inline Wide wide(const int8_t *x) {
    Wide out;  // by name, because compilers take the sixteen apart
#if defined(__AVX512F__)
    __m512 all = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)x)));
    __builtin_memcpy(&out, &all, sizeof out);
#elif defined(__AVX2__)
    __m256 halves[2];
    for (int i = 0; i < 2; i++)
        halves[i] = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(x + 8 * i))));
    __builtin_memcpy(&out, halves, sizeof out);
#else
    for (int i = 0; i < 16; i++) out[i] = x[i];
#endif
    return out;
}

static inline void store(float *to, Wide x) { __builtin_memcpy(to, &x, sizeof x); }

static inline float total(Wide x) {
    using Half = float __attribute__((vector_size(32)));
    using Quarter = float __attribute__((vector_size(16)));
    Half halves[2];
    __builtin_memcpy(halves, &x, sizeof halves);
    Half half = halves[0] + halves[1];
    Quarter quarters[2];
    __builtin_memcpy(quarters, &half, sizeof quarters);
    Quarter quarter = quarters[0] + quarters[1];
    return (quarter[0] + quarter[2]) + (quarter[1] + quarter[3]);
}
