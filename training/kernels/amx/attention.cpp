// Causal attention of packed sequences in bfloat16, forward and backward, on the tiles of AMX.
//
// Nothing above the diagonal is computed but what shares a 32 x 32 block with it. A job is one sequence and one head of
// keys with the query heads that share it; what it needs lies in memory of its thread, which a core's cache holds for
// sequences of a few hundred tokens. Results do not depend on the number of threads.
//
// Over 300 lines: packing, products and both passes share the layout of the tiles.
//
// Matrices that are multiplied lie in tiles of 1 KiB: a left one (rows, depth) in tiles of 16 rows by 32 numbers of
// depth, a right one (depth, columns) in tiles of 32 by 16, as 16 rows of 16 pairs of numbers that follow one another in
// depth; the tiles of one row or column lie side by side along depth. Products come in four tiles of 16 x 16 floats.

#include "../numbers.h"

#if defined(__AMX_BF16__) && defined(__AVX512BF16__)

#include <immintrin.h>
#include <omp.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <memory>
#include <new>
#include <utility>
#include <vector>

namespace {

const Int SIDE = 16, DEPTH = 32, TILE = 512, BLOCK = 32;  // TILE in bf16, half of it in floats
const float HIDDEN = -1e30f;                              // the score of what is not seen; its exponential is 0
const Int SPAN = 8;                                       // blocks of keys whose part of the queries' gradients is one sum

inline Int blocks_of(Int n) { return (n + BLOCK - 1) / BLOCK; }

// The compiler does not know that tile instructions read memory.
inline void written() { asm volatile("" ::: "memory"); }

struct alignas(64) Configuration {
    uint8_t palette = 1, start = 0, unused[14] = {};
    uint16_t bytes[16] = {};
    uint8_t rows[16] = {};
};

void begin_tiles() {
    Configuration wanted;
    for (int i = 0; i < 8; i++) wanted.bytes[i] = 64, wanted.rows[i] = 16;
    written();
    _tile_loadconfig(&wanted);
}

// c (32 x 32) = or += a (32 x depth) b (depth x 32), `depth` tiles deep; the second row or column of tiles is `a_next`
// or `b_next` numbers further on.
inline void multiply(const bf16 *a, Int a_next, const bf16 *b, Int b_next, Int depth, float *c, bool add) {
    written();
    if (add) {
        _tile_loadd(0, c, 64);
        _tile_loadd(1, c + 256, 64);
        _tile_loadd(2, c + 512, 64);
        _tile_loadd(3, c + 768, 64);
    } else {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    }
    for (Int k = 0; k < depth; k++, a += TILE, b += TILE) {
        _tile_loadd(4, a, 64);
        _tile_loadd(6, b, 64);
        _tile_loadd(7, b + b_next, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_loadd(5, a + a_next, 64);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, c, 64);
    _tile_stored(1, c + 256, 64);
    _tile_stored(2, c + 512, 64);
    _tile_stored(3, c + 768, 64);
}

// The 16 numbers of row r (0 to 31) of a product, `half` its first or last columns.
inline float *row_of(float *c, Int r, Int half) { return c + (r / SIDE * 2 + half) * 256 + r % SIDE * SIDE; }

// e to the x, x at most about 0: within 1e-5 of it, which bfloat16 does not see. NaN stays NaN.
inline __m512 exponential(__m512 x) {
    __m512 t = _mm512_mul_ps(x, _mm512_set1_ps(1.44269504088896341f));
    __m512 whole = _mm512_roundscale_ps(t, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512 f = _mm512_sub_ps(t, whole), p = _mm512_set1_ps(1.3333558e-3f);
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(9.6181291e-3f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(5.5504109e-2f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(2.4022651e-1f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(6.9314718e-1f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(p, whole);
}

inline __m512i both(__m512 first, __m512 second) { return (__m512i)_mm512_cvtne2ps_pbh(second, first); }

// Pairs (first[i], second[i]) of bf16.
inline __m512i paired(__m256i first, __m256i second) {
    return _mm512_or_si512(_mm512_cvtepu16_epi32(first), _mm512_slli_epi32(_mm512_cvtepu16_epi32(second), 16));
}

inline __m512i wide(const void *from) { return _mm512_loadu_si512(from); }
inline __m256i narrow(const void *from) { return _mm256_loadu_si256((const __m256i *)from); }

// 16 x 16 numbers of 32 bits, turned over their diagonal.
inline void transpose(const void *from, void *to) {
    __m512i a[16], b[16];
    for (int i = 0; i < 16; i++) a[i] = wide((const char *)from + 64 * i);
    for (int i = 0; i < 16; i += 2) {
        b[i] = _mm512_unpacklo_epi32(a[i], a[i + 1]);
        b[i + 1] = _mm512_unpackhi_epi32(a[i], a[i + 1]);
    }
    for (int i = 0; i < 16; i += 4)
        for (int j = 0; j < 2; j++) {
            a[i + 2 * j] = _mm512_unpacklo_epi64(b[i + j], b[i + 2 + j]);
            a[i + 2 * j + 1] = _mm512_unpackhi_epi64(b[i + j], b[i + 2 + j]);
        }
    for (int i = 0; i < 4; i++) {  // a[4 g + i] holds column i of rows 4 g to 4 g + 3, and columns i + 4, i + 8, i + 12
        __m512i low = _mm512_shuffle_i32x4(a[i], a[i + 4], 0x88), high = _mm512_shuffle_i32x4(a[i], a[i + 4], 0xdd);
        __m512i more = _mm512_shuffle_i32x4(a[i + 8], a[i + 12], 0x88), most = _mm512_shuffle_i32x4(a[i + 8], a[i + 12], 0xdd);
        b[i] = _mm512_shuffle_i32x4(low, more, 0x88);
        b[i + 4] = _mm512_shuffle_i32x4(high, most, 0x88);
        b[i + 8] = _mm512_shuffle_i32x4(low, more, 0xdd);
        b[i + 12] = _mm512_shuffle_i32x4(high, most, 0xdd);
    }
    for (int i = 0; i < 16; i++) _mm512_storeu_si512((char *)to + 64 * i, b[i]);
}

// A head of some rows: number i of row r is at[r * row + i].
struct View {
    bf16 *at;
    Int row;
};

// Tensors (tokens, heads, d), each a pointer and the strides of tokens and heads.
struct Tensor3 {
    bf16 *at;
    Int row, head;
    View of(Int token, Int h) const { return {at + token * row + h * head, row}; }
};

// How many numbers a head of d numbers and a sequence take here.
struct Sizes {
    Int length, d, blocks, chunks;  // blocks of 32 tokens, chunks of 32 numbers of a head
    Sizes(Int length, Int d) : length(length), d(d), blocks(blocks_of(length)), chunks(blocks_of(d)) {}
    Int numbers() const { return blocks * chunks * 2 * TILE; }
    Int right(Int block) const { return block * 2 * chunks * TILE; }  // where a block's columns begin, or its left rows
};

// A left matrix (tokens, d), zeros where there is nothing.
void pack_rows(View x, const Sizes &n, bf16 *to) {
    for (Int r = 0; r < n.blocks * BLOCK; r++)
        for (Int c = 0; c < n.chunks; c++) {
            bf16 *place = to + (r / SIDE * n.chunks + c) * TILE + r % SIDE * DEPTH;
            Int there = r < n.length ? (n.d - c * DEPTH < DEPTH ? n.d - c * DEPTH : DEPTH) : 0;
            if (there) std::memcpy(place, x.at + r * x.row + c * DEPTH, there * sizeof(bf16));
            if (there < DEPTH) std::memset(place + there, 0, (DEPTH - there) * sizeof(bf16));
        }
}

// Every tile turned: from a left matrix (tokens, d) the right matrix (d, tokens), since pairs lie along d in both, and from
// a right matrix (tokens, d) the left matrix (d, tokens).
void turn_tiles(const bf16 *tiles, const Sizes &n, bf16 *to) {
    for (Int tile = 0; tile < n.blocks * 2 * n.chunks; tile++) transpose(tiles + tile * TILE, to + tile * TILE);
}

// From a left matrix (tokens, d) the right matrix (tokens, d): pairs of tokens.
void pack_pairs(const bf16 *left, const Sizes &n, bf16 *to) {
    for (Int block = 0; block < n.blocks; block++)
        for (Int c = 0; c < n.chunks; c++)
            for (Int pair = 0; pair < SIDE; pair++) {
                Int r = block * BLOCK + 2 * pair;
                const bf16 *rows = left + (r / SIDE * n.chunks + c) * TILE + r % SIDE * DEPTH;
                for (Int half = 0; half < 2; half++) {
                    bf16 *place = to + ((c * 2 + half) * n.blocks + block) * TILE + pair * DEPTH;
                    _mm512_storeu_si512(place, paired(narrow(rows + half * SIDE), narrow(rows + half * SIDE + DEPTH)));
                }
            }
}

// A product's rows, 16 numbers of it at a time, to a head's numbers from `first` on.
inline void unpack(__m512 x, View to, Int token, Int first, Int d) {
    Int left = d - first;
    if (left <= 0) return;
    __mmask16 there = left >= SIDE ? 0xffff : (1u << left) - 1;
    _mm256_mask_storeu_epi16(to.at + token * to.row + first, there, (__m256i)_mm512_cvtneps_pbh(x));
}

inline Int aligned(Int bytes) { return (bytes + 63) / 64 * 64; }

struct Free {
    void operator()(char *memory) const { std::free(memory); }
};

// Memory for `threads` threads, `bytes` each, or null.
std::unique_ptr<char, Free> allocate(Int bytes, int threads) {
    return std::unique_ptr<char, Free>((char *)std::aligned_alloc(64, aligned(bytes) * threads));
}

// The part of it that the calling thread gives away piece by piece.
struct Space {
    char *begin, *free;
    Space(char *memory, Int bytes) : begin(memory + aligned(bytes) * omp_get_thread_num()), free(begin) {}
    bf16 *numbers(Int n) { return (bf16 *)take(n * sizeof(bf16)); }
    float *floats(Int n) { return (float *)take(n * sizeof(float)); }
    char *take(Int bytes) { return std::exchange(free, free + aligned(bytes)); }
};

// What the tokens of one sequence see through one head. `keys` is the right matrix (d, tokens), `values` (tokens, d).
void forward(View query, const bf16 *keys, const bf16 *values, const Sizes &n, float scale, View out, float *log_sums,
             bf16 *queries, float *scores, bf16 *weights) {
    __m512 factor = _mm512_set1_ps(scale);
    alignas(64) float product[1024];
    float sums[BLOCK];
    pack_rows(query, n, queries);
    for (Int block = 0; block < n.blocks; block++) {
        const bf16 *rows = queries + n.right(block);
        for (Int k = 0; k <= block; k++)
            multiply(rows, n.chunks * TILE, keys + n.right(k), n.chunks * TILE, n.chunks, scores + k * 1024, false);
        for (Int r = 0; r < BLOCK; r++) {
            for (Int half = 0; half < 2; half++) {  // later tokens, which share the block on the diagonal
                Int seen = r + 1 - half * SIDE;
                __mmask16 mask = seen >= SIDE ? 0xffff : seen <= 0 ? 0 : (1u << seen) - 1;
                float *at = row_of(scores + block * 1024, r, half);
                _mm512_storeu_ps(at, _mm512_mask_blend_ps(mask, _mm512_set1_ps(HIDDEN), _mm512_loadu_ps(at)));
            }
            __m512 most = _mm512_set1_ps(-INFINITY), sum = _mm512_setzero_ps();
            for (Int k = 0; k <= block; k++)
                for (Int half = 0; half < 2; half++)
                    most = _mm512_max_ps(_mm512_loadu_ps(row_of(scores + k * 1024, r, half)), most);
            float top = _mm512_reduce_max_ps(most) * scale;
            __m512 shift = _mm512_set1_ps(top);
            for (Int k = 0; k <= block; k++) {
                __m512 w[2];
                for (Int half = 0; half < 2; half++) {
                    __m512 s = _mm512_loadu_ps(row_of(scores + k * 1024, r, half));
                    w[half] = exponential(_mm512_fmsub_ps(s, factor, shift));
                    sum = _mm512_add_ps(sum, w[half]);
                }
                bf16 *place = weights + (r / SIDE * n.blocks + k) * TILE + r % SIDE * DEPTH;
                _mm512_storeu_si512(place, both(w[0], w[1]));
            }
            sums[r] = _mm512_reduce_add_ps(sum);
            Int token = block * BLOCK + r;
            if (token < n.length) log_sums[token] = top + std::log(sums[r]);
        }
        for (Int c = 0; c < n.chunks; c++) {
            multiply(weights, n.blocks * TILE, values + c * 2 * n.blocks * TILE, n.blocks * TILE, block + 1, product, false);
            for (Int r = 0; r < BLOCK && block * BLOCK + r < n.length; r++)
                for (Int half = 0; half < 2; half++) {
                    __m512 x = _mm512_mul_ps(_mm512_loadu_ps(row_of(product, r, half)), _mm512_set1_ps(1.0f / sums[r]));
                    unpack(x, out, block * BLOCK + r, c * DEPTH + half * SIDE, n.d);
                }
        }
    }
}

// Memory for the backward pass through one sequence, and the parts of it.
struct Backward {
    Sizes n;
    float scale;
    bf16 *keys, *values, *keys_turned;                             // left: (tokens, d) twice, (d, tokens)
    bf16 *queries, *queries_across, *grads, *grads_across, *left;  // right: (tokens, d) and (d, tokens) of each; left
    bf16 *weights, *changes, *changes_paired;  // left (32 keys, queries) twice; right (SPAN blocks of keys, queries)
    float *log_sums, *delta, *d_query, *d_key, *d_value;

    static Int bytes(const Sizes &n) {
        return 8 * n.numbers() * 2 + 2 * n.blocks * 2 * TILE * 2 + SPAN * n.blocks * 2 * TILE * 2 + 3 * n.numbers() * 4 +
               2 * n.blocks * BLOCK * 4 + 32 * 64;
    }

    Backward(Space &space, const Sizes &n, float scale) : n(n), scale(scale) {
        for (bf16 **one : {&keys, &values, &keys_turned, &queries, &queries_across, &grads, &grads_across, &left})
            *one = space.numbers(n.numbers());
        for (bf16 **one : {&weights, &changes}) *one = space.numbers(n.blocks * 2 * TILE);
        changes_paired = space.numbers(SPAN * n.blocks * 2 * TILE);
        for (float **one : {&log_sums, &delta}) *one = space.floats(n.blocks * BLOCK);
        for (float **one : {&d_query, &d_key, &d_value}) *one = space.floats(n.numbers());
    }

    void take_keys(View key, View value) {
        pack_rows(value, n, values);
        pack_rows(key, n, keys);
        pack_pairs(keys, n, left);
        turn_tiles(left, n, keys_turned);
    }

    void take_queries(View query, View grad, View out, const float *sums) {
        pack_rows(query, n, left);
        turn_tiles(left, n, queries_across);
        pack_pairs(left, n, queries);
        pack_rows(grad, n, left);
        turn_tiles(left, n, grads_across);
        pack_pairs(left, n, grads);
        for (Int t = 0; t < n.blocks * BLOCK; t++) {
            log_sums[t] = t < n.length ? sums[t] : 0.0f, delta[t] = 0;
            if (t >= n.length) continue;
            const bf16 *g = grad.at + t * grad.row, *o = out.at + t * out.row;
            float dot = 0;
#pragma omp simd reduction(+ : dot)
            for (Int i = 0; i < n.d; i++) dot += get(g[i]) * get(o[i]);
            delta[t] = dot;
        }
    }

    // Attention weights and the scores' gradients of a block of keys (rows) and one of queries (columns).
    void weigh(Int key, Int query) {
        alignas(64) float score[1024], grad[1024];
        multiply(keys + n.right(key), n.chunks * TILE, queries_across + n.right(query), n.chunks * TILE, n.chunks, score, false);
        multiply(values + n.right(key), n.chunks * TILE, grads_across + n.right(query), n.chunks * TILE, n.chunks, grad, false);
        __m512 factor = _mm512_set1_ps(scale), shift[2], back[2];
        for (Int half = 0; half < 2; half++) {
            shift[half] = _mm512_loadu_ps(log_sums + query * BLOCK + half * SIDE);
            back[half] = _mm512_mul_ps(_mm512_loadu_ps(delta + query * BLOCK + half * SIDE), factor);
        }
        for (Int r = 0; r < BLOCK; r += 2) {
            __m512i change[2];
            for (Int odd = 0; odd < 2; odd++) {
                __m512 w[2], c[2];
                for (Int half = 0; half < 2; half++) {
                    __m512 s = _mm512_loadu_ps(row_of(score, r + odd, half)), g = _mm512_loadu_ps(row_of(grad, r + odd, half));
                    w[half] = exponential(_mm512_fmsub_ps(s, factor, shift[half]));
                    if (key == query) {  // earlier queries do not see this key
                        Int earlier = r + odd - half * SIDE;
                        w[half] = _mm512_maskz_mov_ps(earlier <= 0 ? 0xffff : earlier >= SIDE ? 0 : 0xffff << earlier, w[half]);
                    }
                    c[half] = _mm512_mul_ps(w[half], _mm512_fmsub_ps(g, factor, back[half]));
                }
                Int place = ((r + odd) / SIDE * n.blocks + query) * TILE + (r + odd) % SIDE * DEPTH;
                _mm512_storeu_si512(weights + place, both(w[0], w[1]));
                _mm512_storeu_si512(changes + place, change[odd] = both(c[0], c[1]));
            }
            for (Int half = 0; half < 2; half++) {
                bf16 *place = changes_paired + ((query * 2 + half) * SPAN + key % SPAN) * TILE + r / 2 * DEPTH;
                __m256i one = half ? _mm512_extracti64x4_epi64(change[0], 1) : _mm512_castsi512_si256(change[0]);
                __m256i two = half ? _mm512_extracti64x4_epi64(change[1], 1) : _mm512_castsi512_si256(change[1]);
                _mm512_storeu_si512(place, paired(one, two));
            }
        }
    }

    // Adds one head's part to d_key and d_value (or begins them), and writes d_query.
    void learn(bool add) {
        for (Int first = 0; first < n.blocks; first += SPAN) {
            Int end = first + SPAN < n.blocks ? first + SPAN : n.blocks;
            for (Int key = first; key < end; key++) {
                Int queries_left = n.blocks - key, at = key * TILE, next = n.blocks * TILE;
                for (Int query = key; query < n.blocks; query++) weigh(key, query);
                for (Int c = 0; c < n.chunks; c++) {
                    Int column = c * 2 * next + at, place = (key * n.chunks + c) * 1024;
                    multiply(weights + at, next, grads + column, next, queries_left, d_value + place, add);
                    multiply(changes + at, next, queries + column, next, queries_left, d_key + place, add);
                }
            }
            for (Int query = first; query < n.blocks; query++)
                for (Int c = 0; c < n.chunks; c++)  // rows are numbers of the head, columns are queries
                    multiply(
                        keys_turned + c * 2 * n.blocks * TILE + first * TILE, n.blocks * TILE,
                        changes_paired + query * 2 * SPAN * TILE, SPAN * TILE, (query < end ? query + 1 : end) - first,
                        d_query + (query * n.chunks + c) * 1024, first > 0);
        }
    }

    void give_query(View to) const {
        alignas(64) float turned[256];
        for (Int block = 0; block < n.blocks; block++)
            for (Int c = 0; c < n.chunks; c++)
                for (Int tile = 0; tile < 4; tile++) {
                    transpose(d_query + (block * n.chunks + c) * 1024 + tile * 256, turned);
                    Int token = block * BLOCK + tile % 2 * SIDE, first = c * DEPTH + tile / 2 * SIDE;
                    for (Int r = 0; r < SIDE && token + r < n.length; r++)
                        unpack(_mm512_loadu_ps(turned + r * SIDE), to, token + r, first, n.d);
                }
    }

    void give(float *from, View to) const {
        for (Int token = 0; token < n.length; token++)
            for (Int c = 0; c < n.chunks; c++)
                for (Int half = 0; half < 2; half++) {
                    float *row = row_of(from + (token / BLOCK * n.chunks + c) * 1024, token % BLOCK, half);
                    unpack(_mm512_loadu_ps(row), to, token, c * DEPTH + half * SIDE, n.d);
                }
    }
};

// Sequences, one after another, from the numbers and lengths of blocks of them: where each begins and its length.
struct Sequences {
    std::vector<Int> starts, lengths;
    Int longest = 0;
    Sequences(const Int *blocks, Int n) {
        Int at = 0;
        for (Int i = 0; i < n; i++) {
            Int length = blocks[2 * i + 1];
            longest = length > longest ? length : longest;
            for (Int j = 0; j < blocks[2 * i]; j++, at += length) starts.push_back(at), lengths.push_back(length);
        }
    }
    Int count() const { return Int(starts.size()); }
};

bool make_up(const Int *blocks, Int n, Int tokens) {
    Int sum = 0;
    for (Int i = 0; i < n; i++) {
        if (blocks[2 * i] < 0 || blocks[2 * i + 1] < 1) return false;
        sum += blocks[2 * i] * blocks[2 * i + 1];
    }
    return sum == tokens;
}

}  // namespace

extern "C" int has_amx() {
    const long ask = 0x1023, tiles = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA: Linux lends them on request
    return syscall(SYS_arch_prctl, ask, tiles) == 0;
}

// Of (tokens, heads, d) queries and (tokens, kv_heads, d) keys and values: `out` and log_sums (heads, tokens). Views are
// query, key, value, out, each a pointer and two strides; __init__.py checks them. Blocks are (n, length): n sequences of
// `length` tokens.
extern "C" Status attention_forward(const Tensor3 *views /* 4 */, const Int *blocks /* 2 * n_blocks */, Int n_blocks,
                                    Int tokens, Int heads, Int kv_heads, Int d, float scale,
                                    float *log_sums /* heads * tokens */, int threads) try {
    if (!make_up(blocks, n_blocks, tokens) || kv_heads < 1 || heads % kv_heads) return BAD_SIZES;
    const Tensor3 &query = views[0], &key = views[1], &value = views[2], &out = views[3];
    Sequences sequences(blocks, n_blocks);
    Sizes most(sequences.longest, d);
    Int bytes = 4 * most.numbers() * 2 + most.blocks * (1024 * 4 + 2 * TILE * 2) + 8 * 64, groups = heads / kv_heads;
    auto memory = allocate(bytes, threads);
    if (!memory) return NO_MEMORY;
#pragma omp parallel num_threads(threads)
    {
        Space space(memory.get(), bytes);
        bf16 *left = space.numbers(most.numbers()), *queries = space.numbers(most.numbers());
        bf16 *keys = space.numbers(most.numbers()), *values = space.numbers(most.numbers());
        bf16 *weights = space.numbers(most.blocks * 2 * TILE);
        float *scores = space.floats(most.blocks * 1024);
        begin_tiles();
#pragma omp for schedule(dynamic)
        for (Int job = 0; job < sequences.count() * kv_heads; job++) {
            Int s = job / kv_heads, shared = job % kv_heads, at = sequences.starts[s];
            Sizes n(sequences.lengths[s], d);
            pack_rows(key.of(at, shared), n, left);
            turn_tiles(left, n, keys);
            pack_rows(value.of(at, shared), n, left);
            pack_pairs(left, n, values);
            for (Int h = shared * groups; h < (shared + 1) * groups; h++)
                forward(query.of(at, h), keys, values, n, scale, out.of(at, h), log_sums + h * tokens + at, queries, scores, weights);
        }
        _tile_release();
    }
    return OK;
} catch (const std::bad_alloc &) {
    return NO_MEMORY;
}

// Through `attention_forward`. Views are query, key, value, what it gave, the gradient of that, and to write to: the gradients of
// query, key and value.
extern "C" Status attention_backward(const Tensor3 *views /* 8 */, const Int *blocks /* 2 * n_blocks */, Int n_blocks,
                                     Int tokens, Int heads, Int kv_heads, Int d, float scale,
                                     const float *log_sums /* heads * tokens */, int threads) try {
    if (!make_up(blocks, n_blocks, tokens) || kv_heads < 1 || heads % kv_heads) return BAD_SIZES;
    const Tensor3 &query = views[0], &key = views[1], &value = views[2], &out = views[3], &grad = views[4];
    const Tensor3 &d_query = views[5], &d_key = views[6], &d_value = views[7];
    Sequences sequences(blocks, n_blocks);
    Int bytes = Backward::bytes(Sizes(sequences.longest, d)), groups = heads / kv_heads;
    auto memory = allocate(bytes, threads);
    if (!memory) return NO_MEMORY;
#pragma omp parallel num_threads(threads)
    {
        Space space(memory.get(), bytes);
        begin_tiles();
#pragma omp for schedule(dynamic)
        for (Int job = 0; job < sequences.count() * kv_heads; job++) {
            Int s = job / kv_heads, shared = job % kv_heads, at = sequences.starts[s];
            space.free = space.begin;
            Backward pass(space, Sizes(sequences.lengths[s], d), scale);
            pass.take_keys(key.of(at, shared), value.of(at, shared));
            for (Int h = shared * groups; h < (shared + 1) * groups; h++) {
                pass.take_queries(query.of(at, h), grad.of(at, h), out.of(at, h), log_sums + h * tokens + at);
                pass.learn(h > shared * groups);
                pass.give_query(d_query.of(at, h));
            }
            pass.give(pass.d_key, d_key.of(at, shared));
            pass.give(pass.d_value, d_value.of(at, shared));
        }
        _tile_release();
    }
    return OK;
} catch (const std::bad_alloc &) {
    return NO_MEMORY;
}

#else

extern "C" int has_amx() { return 0; }

#endif
