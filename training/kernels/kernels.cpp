// Work on rows of numbers, each done in one pass over memory where a chain of tensor operations takes several.
//
// This is compiled once for float and once for bfloat16: NUMBER is what activations are stored as; arithmetic is in
// float. Rows are divided among threads in a fixed way, and sums over rows are added up in the order of threads, so that
// results depend on the number of threads and on nothing else.
//
// Over 300 lines: one command compiles it, and everything in it can be inlined.
//
// signatures.py reads the declarations of the functions that return a Status, with the comment after each pointer: how
// many numbers it points to, in terms of the Ints of the same call. Every call is checked against that. Indexes are
// checked here. Memory is taken before threads begin, so that no exception leaves a parallel region.

#include <omp.h>

#include <cmath>
#include <cstring>
#include <memory>
#include <new>
#include <vector>

#include "numbers.h"

using T = NUMBER;  // float or bf16, by the compiler's command line

static inline bool in_range(const Int *indexes, Int n, Int end) {
    for (Int i = 0; i < n; i++)
        if (indexes[i] < 0 || indexes[i] >= end) return false;
    return true;
}

// e to the x within two units in the last place, as Cephes computes it; 0 below -87.
static inline float exponential(float x) {
    const float magic = 12582912.0f;  // 1.5 * 2^23: what is added to it is rounded to a whole number
    float bounded = 88.0f < x ? 88.0f : x;  // in this order NaN stays NaN
    bounded = -87.0f > bounded ? -87.0f : bounded;
    float shifted = bounded * 1.44269504088896341f + magic;
    float whole = shifted - magic;
    float r = bounded - whole * 0.693359375f + whole * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    int32_t exponent = __builtin_bit_cast(int32_t, shifted) - __builtin_bit_cast(int32_t, magic);
    float power = __builtin_bit_cast(float, uint32_t(exponent + 127) << 23);
    return x < -87.0f ? 0.0f : p * power;
}

template <class N>
static inline float largest(const N *x, Int n) {
    float most = -INFINITY;
#pragma omp simd reduction(max : most)
    for (Int i = 0; i < n; i++) most = get(x[i]) > most ? get(x[i]) : most;
    return most;
}

// ------------------------------------------------------------------------------------------------------------- norms

static inline void normalize(const float *x, const float *weight, float eps, Int width, T *out, float *inverse) {
    float squares = 0;
#pragma omp simd reduction(+ : squares)
    for (Int i = 0; i < width; i++) squares += x[i] * x[i];
    float scale = 1.0f / std::sqrt(squares / float(width) + eps);
    *inverse = scale;
#pragma omp simd
    for (Int i = 0; i < width; i++) put(out[i], x[i] * scale * weight[i]);
}

extern "C" Status rms_norm(const float *x /* rows * width */, const float *weight /* width */, float eps, Int rows,
                           Int width, T *out /* rows * width */, float *inverse /* rows */, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (Int r = 0; r < rows; r++) normalize(x + r * width, weight, eps, width, out + r * width, inverse + r);
    return OK;
}

static inline void add_row(const float *x, const T *residual, const float *bias, Int width, float *total) {
    if (bias) {
#pragma omp simd
        for (Int i = 0; i < width; i++) total[i] = x[i] + get(residual[i]) + bias[i];
    } else {
#pragma omp simd
        for (Int i = 0; i < width; i++) total[i] = x[i] + get(residual[i]);
    }
}

// total = x + residual (+ bias); where weight, out and inverse are given, also its norm.
extern "C" Status add_rms_norm(const float *x /* rows * width */, const T *residual /* rows * width */,
                               const float *bias /* null or width */, const float *weight /* null or width */,
                               float eps, Int rows, Int width, float *total /* rows * width */,
                               T *out /* null or rows * width */, float *inverse /* null or rows */, int threads) {
    if ((weight && out && inverse) != (weight || out || inverse)) return BAD_SIZES;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (Int r = 0; r < rows; r++) {
        Int at = r * width;
        add_row(x + at, residual + at, bias, width, total + at);
        if (out) normalize(total + at, weight, eps, width, out + at, inverse + r);
    }
    return OK;
}

// Through out = x * inverse * weight. `change`, the gradient of x, is `past` (that which goes past the norm, or null) plus
// what comes through it. Where given: `cast` is change in T, `normed` is out again, and d_weight the weight's gradient.
extern "C" Status rms_norm_backward(const float *past /* null or rows * width */, const T *grad /* rows * width */,
                                    const float *x /* rows * width */, const float *inverse /* rows */,
                                    const float *weight /* width */, Int rows, Int width,
                                    float *change /* rows * width */, T *cast /* null or rows * width */,
                                    T *normed /* null or rows * width */, float *d_weight /* null or width */,
                                    int threads) try {
    std::vector<float> parts(d_weight ? threads * width : 0, 0.0f);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int thread = 0; thread < threads; thread++) {
        float *part = d_weight ? parts.data() + thread * width : nullptr;
        for (Int r = rows * thread / threads; r < rows * (thread + 1) / threads; r++) {
            Int at = r * width;
            const float *row = x + at;
            const T *g = grad + at;
            float scale = inverse[r], dot = 0;
#pragma omp simd reduction(+ : dot)
            for (Int i = 0; i < width; i++) dot += get(g[i]) * weight[i] * row[i];
            float back = dot * scale * scale * scale / float(width);
#pragma omp simd
            for (Int i = 0; i < width; i++)
                change[at + i] = (past ? past[at + i] : 0.0f) + get(g[i]) * weight[i] * scale - row[i] * back;
            if (cast) {
#pragma omp simd
                for (Int i = 0; i < width; i++) put(cast[at + i], change[at + i]);
            }
            if (normed) {
#pragma omp simd
                for (Int i = 0; i < width; i++) put(normed[at + i], row[i] * scale * weight[i]);
            }
            if (part) {
#pragma omp simd
                for (Int i = 0; i < width; i++) part[i] += get(g[i]) * row[i] * scale;
            }
        }
    }
    if (!d_weight) return OK;
    std::memset(d_weight, 0, width * sizeof(float));
    for (int thread = 0; thread < threads; thread++)
        for (Int i = 0; i < width; i++) d_weight[i] += parts[thread * width + i];
    return OK;
} catch (const std::bad_alloc &) {
    return NO_MEMORY;
}

// ------------------------------------------------------------------------------------------------------------ SwiGLU

static inline float sigmoid(float x) { return 1.0f / (1.0f + exponential(-x)); }

// out = silu(gate) * up of rows that hold gate and then up, width numbers each.
extern "C" Status swiglu(const T *joined /* rows * 2 * width */, Int rows, Int width, T *out /* rows * width */,
                         int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (Int r = 0; r < rows; r++) {
        const T *gate = joined + 2 * r * width, *up = gate + width;
        T *to = out + r * width;
#pragma omp simd
        for (Int i = 0; i < width; i++) {
            float g = get(gate[i]);
            put(to[i], g * sigmoid(g) * get(up[i]));
        }
    }
    return OK;
}

// `grad` is that of out on entry and out itself on return; `change` is the gradient of `joined`.
extern "C" Status swiglu_backward(T *grad /* rows * width */, const T *joined /* rows * 2 * width */, Int rows,
                                  Int width, T *change /* rows * 2 * width */, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (Int r = 0; r < rows; r++) {
        const T *gate = joined + 2 * r * width, *up = gate + width;
        T *d_gate = change + 2 * r * width, *d_up = d_gate + width, *d = grad + r * width;
#pragma omp simd
        for (Int i = 0; i < width; i++) {
            float g = get(gate[i]), u = get(up[i]), go = get(d[i]), s = sigmoid(g);
            put(d_gate[i], go * u * s * (1.0f + g * (1.0f - s)));
            put(d_up[i], go * g * s);
            put(d[i], g * s * u);
        }
    }
    return OK;
}

// ---------------------------------------------------------------------------------------------------------- rotation

// The pair (i, i + half) of a head, turned by an angle.
static inline void rotate_head(T *head, const float *cosine, const float *sine, Int half, float sign) {
#pragma omp simd
    for (Int i = 0; i < half; i++) {
        float a = get(head[i]), b = get(head[half + i]), c = cosine[i], s = sign * sine[i];
        put(head[i], a * c - b * s);
        put(head[half + i], b * c + a * s);
    }
}

// The first `heads` of the 2 * half numbers each in rows that are `stride` apart; cosine and sine (rows, half).
extern "C" Status apply_rotary(T *x /* at least (rows - 1) * stride + heads * 2 * half */,
                               const float *cosine /* rows * half */, const float *sine /* rows * half */, Int rows,
                               Int heads, Int half, Int stride, float sign, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (Int r = 0; r < rows; r++)
        for (Int h = 0; h < heads; h++)
            rotate_head(x + r * stride + h * 2 * half, cosine + r * half, sine + r * half, half, sign);
    return OK;
}

// --------------------------------------------------------------------------------------------------- causal attention

// Rows of scores, `width` numbers each, of sequences of `length` tokens: row r belongs to token r % queries.
// `scores` (queries with keys, unscaled) become attention weights, and `grads` (those of the weights) become the scores'.
// Later tokens get zeros.
extern "C" Status causal_softmax_backward(T *scores /* rows * width */, T *grads /* rows * width */,
                                          const float *log_sums /* rows */, Int rows, Int queries, Int width,
                                          float scale, int threads) {
    if (rows && (queries < 1 || queries > width)) return BAD_SIZES;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (Int r = 0; r < rows; r++) {
        T *s = scores + r * width, *g = grads + r * width;
        Int seen = r % queries + 1, end = (seen + 31) / 32 * 32;  // whole vectors; what is too much is masked
        if (end > width) end = width;
        float log_sum = log_sums[r], dot = 0;
#pragma omp simd reduction(+ : dot)
        for (Int i = 0; i < end; i++) {
            float weight = i < seen ? exponential(get(s[i]) * scale - log_sum) : 0.0f;
            dot += weight * get(g[i]);
            put(s[i], weight);
        }
#pragma omp simd
        for (Int i = 0; i < end; i++) put(g[i], get(s[i]) * (get(g[i]) - dot) * scale);
        std::memset(s + end, 0, (width - end) * sizeof(T));
        std::memset(g + end, 0, (width - end) * sizeof(T));
    }
    return OK;
}

// ----------------------------------------------------------------------------------------------------- output layer

// Of softmax(scale * x): log p(target), log-sum-exp and, where given, the entropy, for each row.
extern "C" Status logprobs_from_logits(const T *x /* rows * width */, const Int *targets /* rows */, float scale,
                                       Int rows, Int width, float *logprobs /* rows */, float *log_sums /* rows */,
                                       float *entropies /* null or rows */, int threads) {
    if (!in_range(targets, rows, width)) return INDEX_OUT_OF_RANGE;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (Int r = 0; r < rows; r++) {
        const T *row = x + r * width;
        float most = largest(row, width), sum = 0, mean = 0;
        if (entropies) {
#pragma omp simd reduction(+ : sum, mean)
            for (Int i = 0; i < width; i++) {
                float away = (get(row[i]) - most) * scale, e = exponential(away);
                sum += e;
                mean += e * away;
            }
            entropies[r] = std::log(sum) - mean / sum;
        } else {
#pragma omp simd reduction(+ : sum)
            for (Int i = 0; i < width; i++) sum += exponential((get(row[i]) - most) * scale);
        }
        log_sums[r] = most * scale + std::log(sum);
        logprobs[r] = (get(row[targets[r]]) - most) * scale - std::log(sum);
    }
    return OK;
}

// x becomes its gradient, for those of log p(target) and, where given, of the entropies.
extern "C" Status logprobs_from_logits_backward(T *x /* rows * width */, const Int *targets /* rows */,
                                                const float *log_sums /* rows */,
                                                const float *entropies /* null or rows */,
                                                const float *d_logprobs /* rows */,
                                                const float *d_entropies /* null or rows */, float scale, Int rows,
                                                Int width, int threads) {
    if (!in_range(targets, rows, width)) return INDEX_OUT_OF_RANGE;
    if (d_entropies && !entropies) return BAD_SIZES;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (Int r = 0; r < rows; r++) {
        T *row = x + r * width;
        float d = d_logprobs[r] * scale, log_sum = log_sums[r];
        float chosen = exponential(get(row[targets[r]]) * scale - log_sum), from_entropy = 0;
        if (d_entropies) {
            float d_e = d_entropies[r] * scale, entropy = entropies[r];
            from_entropy = -chosen * d_e * (get(row[targets[r]]) * scale - log_sum + entropy);
#pragma omp simd
            for (Int i = 0; i < width; i++) {
                float log_p = get(row[i]) * scale - log_sum;
                put(row[i], -exponential(log_p) * (d + d_e * (log_p + entropy)));
            }
        } else {
#pragma omp simd
            for (Int i = 0; i < width; i++) put(row[i], -d * exponential(get(row[i]) * scale - log_sum));
        }
        put(row[targets[r]], d - d * chosen + from_entropy);
    }
    return OK;
}

// --------------------------------------------------------------------------------------------------------- generation

// Keys and values lie in pages of `page` tokens (kv_heads, page, d); page number p begins p * stride numbers behind the
// first one. Row r of the table has the pages of sequence r, in the order of its tokens.

// Whether a sequence that ends at position `at` lies in pages that there are.
static bool pages_exist(const Int *table, Int at, Int page, Int pages) {
    for (Int b = 0; b <= at / page; b++)
        if (table[b] < 0 || table[b] >= pages) return false;
    return true;
}

// One new token for each of n sequences: `joined` holds its queries, keys and values (heads, kv_heads, kv_heads; d
// numbers each). Queries and keys are normalized where `weights` (heads + kv_heads, d) are given, and turned; keys and
// values go to `positions` of their sequences.
extern "C" Status append_kv(T *joined /* n * (heads + 2 * kv_heads) * d */,
                            const float *weights /* null or (heads + kv_heads) * d */, float eps,
                            const float *cosine /* context * (d // 2) */, const float *sine /* context * (d // 2) */,
                            const Int *positions /* n */, const Int *table /* n * blocks */, Int n, Int heads,
                            Int kv_heads, Int d, Int context, Int blocks, Int page, Int pages, Int stride,
                            T *keys /* at least (pages - 1) * stride + page * kv_heads * d */,
                            T *values /* at least (pages - 1) * stride + page * kv_heads * d */, int threads) {
    if (d % 2 || page < 1 || stride < page * kv_heads * d) return BAD_SIZES;
    if (!in_range(positions, n, context < blocks * page ? context : blocks * page)) return INDEX_OUT_OF_RANGE;
    for (Int r = 0; r < n; r++)
        if (!pages_exist(table + r * blocks, positions[r], page, pages)) return INDEX_OUT_OF_RANGE;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (Int r = 0; r < n; r++) {
        T *row = joined + r * (heads + 2 * kv_heads) * d;
        Int at = positions[r];
        for (Int h = 0; h < heads + kv_heads; h++) {
            T *head = row + h * d;
            if (weights) {
                float squares = 0;
#pragma omp simd reduction(+ : squares)
                for (Int i = 0; i < d; i++) squares += get(head[i]) * get(head[i]);
                float scale = 1.0f / std::sqrt(squares / float(d) + eps);
#pragma omp simd
                for (Int i = 0; i < d; i++) put(head[i], get(head[i]) * scale * weights[h * d + i]);
            }
            rotate_head(head, cosine + at * (d / 2), sine + at * (d / 2), d / 2, 1.0f);
        }
        const T *key = row + heads * d, *value = key + kv_heads * d;
        for (Int h = 0; h < kv_heads; h++) {
            Int to = table[r * blocks + at / page] * stride + (h * page + at % page) * d;
            std::memcpy(keys + to, key + h * d, d * sizeof(T));
            std::memcpy(values + to, value + h * d, d * sizeof(T));
        }
    }
    return OK;
}

// Products of a query with `tokens` keys; those of the `next` page, which lie elsewhere, are asked for meanwhile. D is the
// size d of a head, or 0 where it is not known when this is compiled.
template <Int D>
static inline void score_keys(const float *query, const T *k, const T *next, Int tokens, Int d, float *scores) {
    Int size = D ? D : d, whole = size / 16;
    for (Int t = 0; t < tokens; t++, k += size, next += size) {
        for (Int i = 0; i < size; i += Int(64 / sizeof(T))) __builtin_prefetch(next + i);
        Wide sums = {};
#pragma GCC unroll 8
        for (Int c = 0; c < whole; c++) sums += wide(query + 16 * c) * wide(k + 16 * c);
        float dot = total(sums);
        for (Int i = 16 * whole; i < size; i++) dot += query[i] * get(k[i]);
        scores[t] = dot;
    }
}

// Adds `tokens` values, weighted.
template <Int D>
static inline void add_values(const float *shares, const T *v, const T *next, Int tokens, Int d, float *seen) {
    Int size = D ? D : d, whole = size / 16;
    if constexpr (D > 0 && D <= 128) {
        Wide sums[D / 16];
#pragma GCC unroll 8
        for (Int c = 0; c < D / 16; c++) sums[c] = wide(seen + 16 * c);
        for (Int t = 0; t < tokens; t++, v += size, next += size) {
            for (Int i = 0; i < size; i += Int(64 / sizeof(T))) __builtin_prefetch(next + i);
            Wide share = shares[t] - Wide{};
#pragma GCC unroll 8
            for (Int c = 0; c < D / 16; c++) sums[c] += share * wide(v + 16 * c);
        }
#pragma GCC unroll 8
        for (Int c = 0; c < D / 16; c++) store(seen + 16 * c, sums[c]);
    } else {
        for (Int t = 0; t < tokens; t++, v += size) {
            for (Int c = 0; c < whole; c++) store(seen + 16 * c, wide(seen + 16 * c) + shares[t] * wide(v + 16 * c));
            for (Int i = 16 * whole; i < size; i++) seen[i] += shares[t] * get(v[i]);
        }
    }
}

// What `together` queries, whose heads share a key, see of the first `length` tokens of the sequence with these pages.
// space: together * (longest + 2 * d).
template <Int D>
static void attend(const T *q, const T *keys, const T *values, const Int *own, float scale, Int length, Int longest,
                   Int together, Int d, Int page, Int stride, float *space, T *out) {
    float *queries = space, *seen = queries + together * d, *shares = seen + together * d;
    for (Int i = 0; i < together * d; i++) queries[i] = get(q[i]) * scale, seen[i] = 0;
    for (Int begin = 0; begin < length; begin += page) {
        const T *k = keys + own[begin / page] * stride;
        const T *next = begin + page < length ? keys + own[begin / page + 1] * stride : k;
        Int tokens = begin + page < length ? page : length - begin;
        for (Int g = 0; g < together; g++)
            score_keys<D>(queries + g * d, k, g ? k : next, tokens, d, shares + g * longest + begin);
    }
    for (Int g = 0; g < together; g++) {
        float *share = shares + g * longest, most = largest(share, length), sum = 0;
#pragma omp simd reduction(+ : sum)
        for (Int t = 0; t < length; t++) sum += share[t] = exponential(share[t] - most);
        queries[g] = sum;  // the queries are not needed anymore
    }
    for (Int begin = 0; begin < length; begin += page) {
        const T *v = values + own[begin / page] * stride;
        const T *next = begin + page < length ? values + own[begin / page + 1] * stride : v;
        Int tokens = begin + page < length ? page : length - begin;
        for (Int g = 0; g < together; g++)
            add_values<D>(shares + g * longest + begin, v, g ? v : next, tokens, d, seen + g * d);
    }
    for (Int g = 0; g < together; g++)
        for (Int i = 0; i < d; i++) put(out[g * d + i], seen[g * d + i] / queries[g]);
}

// Attention of the queries in `joined` to the first positions + 1 tokens of their sequences; out (n, heads, d).
extern "C" Status decode_attention(const T *joined /* n * (heads + 2 * kv_heads) * d */,
                                   const T *keys /* at least (pages - 1) * stride + page * kv_heads * d */,
                                   const T *values /* at least (pages - 1) * stride + page * kv_heads * d */,
                                   const Int *positions /* n */, const Int *table /* n * blocks */, float scale, Int n,
                                   Int heads, Int kv_heads, Int d, Int blocks, Int page, Int pages, Int stride,
                                   T *out /* n * heads * d */, int threads) {
    if (kv_heads < 1 || heads % kv_heads || page < 1 || stride < page * kv_heads * d) return BAD_SIZES;
    if (!in_range(positions, n, blocks * page)) return INDEX_OUT_OF_RANGE;
    for (Int r = 0; r < n; r++)
        if (!pages_exist(table + r * blocks, positions[r], page, pages)) return INDEX_OUT_OF_RANGE;
    Int groups = heads / kv_heads, longest = 0;
    for (Int r = 0; r < n; r++) longest = positions[r] >= longest ? positions[r] + 1 : longest;
    // Query heads that share a key are read together, which reads the key once, unless there are too few keys for the
    // threads. A head's arithmetic is the same in both cases.
    Int together = n * kv_heads >= 4 * threads ? groups : 1, jobs = n * heads / together;
    Int width = together * (longest + 2 * d);
    std::unique_ptr<float[]> space(new (std::nothrow) float[threads * width]);
    if (!space) return NO_MEMORY;
    auto *job_of_size = d == 64 ? attend<64> : d == 128 ? attend<128> : d == 32 ? attend<32> : attend<0>;
#pragma omp parallel for num_threads(threads) schedule(dynamic)
    for (Int job = 0; job < jobs; job++) {
        Int r = job * together / heads, first = job * together % heads, offset = first / groups * page * d;
        job_of_size(joined + (r * (heads + 2 * kv_heads) + first) * d, keys + offset, values + offset,
                    table + r * blocks, scale, positions[r] + 1, longest, together, d, page, stride,
                    space.get() + omp_get_thread_num() * width, out + (r * heads + first) * d);
    }
    return OK;
}

// Draws a token from softmax(x / temperature) by inverting the cumulative sum at `uniform`, the likeliest one where the
// temperature is 0; log_sums are those of the whole x, logprobs the tokens' under it.
extern "C" Status sample_tokens(const T *x /* rows * width */, const float *temperatures /* rows */,
                                const float *uniforms /* rows */, Int rows, Int width, Int *tokens /* rows */,
                                float *logprobs /* rows */, float *log_sums /* rows */, int threads) {
    if (rows && width < 1) return BAD_SIZES;
    const Int block = 256, blocks = (width + block - 1) / block;
    std::unique_ptr<float[]> space(new (std::nothrow) float[threads * blocks]);
    if (!space) return NO_MEMORY;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (Int r = 0; r < rows; r++) {
        const T *row = x + r * width;
        float most = largest(row, width), sum = 0, temperature = temperatures[r];
#pragma omp simd reduction(+ : sum)
        for (Int i = 0; i < width; i++) sum += exponential(get(row[i]) - most);
        Int chosen = 0;
        if (temperature == 0) {
            while (chosen < width - 1 && get(row[chosen]) != most) chosen++;
        } else {
            float *ends = space.get() + omp_get_thread_num() * blocks;
            float total = 0, inverse = 1.0f / temperature;
            for (Int b = 0; b < blocks; b++) {
                Int end = (b + 1) * block < width ? (b + 1) * block : width;
                float part = 0;
#pragma omp simd reduction(+ : part)
                for (Int i = b * block; i < end; i++) part += exponential((get(row[i]) - most) * inverse);
                ends[b] = total += part;
            }
            float aim = uniforms[r] * total;
            Int b = 0;
            while (b + 1 < blocks && ends[b] <= aim) b++;
            float reached = b ? ends[b - 1] : 0;
            chosen = b * block;
            Int end = chosen + block < width ? chosen + block : width, last = chosen;
            for (; chosen < end; chosen++) {
                float weight = exponential((get(row[chosen]) - most) * inverse);
                reached += weight;
                if (weight > 0) last = chosen;
                if (reached > aim) break;
            }
            if (chosen == end) chosen = last;  // rounding: the sum by ones ends below the sum by blocks
        }
        tokens[r] = chosen;
        log_sums[r] = most + std::log(sum);
        logprobs[r] = get(row[chosen]) - log_sums[r];
    }
    return OK;
}

// --------------------------------------------------------------------------------------------- matrices of 8-bit numbers

// What a few rows of x give with a matrix of panels: PANEL of its rows side by side, column after column. Each sum is added
// up in the order of columns, so that it depends neither on what other rows there are nor on threads.

constexpr Int PANEL = 16;
#ifdef __AVX512F__
constexpr int SUMS = 16;  // that stay in registers
#else
constexpr int SUMS = 4;
#endif

template <int N, int R>
static inline void multiply_panels(const float *x, const int8_t *panels, const float *scales, Int width, Int outputs,
                                   Int first, float *out) {
    Wide sums[N][R] = {};
    for (Int k = 0; k < width; k++) {
        Wide column[R];
#pragma GCC unroll 16
        for (int r = 0; r < R; r++) column[r] = wide(panels + ((first / PANEL + r) * width + k) * PANEL);
#pragma GCC unroll 16
        for (int i = 0; i < N; i++)
#pragma GCC unroll 16
            for (int r = 0; r < R; r++) sums[i][r] += column[r] * x[i * width + k];
    }
    for (int i = 0; i < N; i++)
        for (int r = 0; r < R; r++)
            for (Int at = first + r * PANEL, j = 0; j < PANEL && at + j < outputs; j++)
                out[i * outputs + at + j] = sums[i][r][j] * scales[at + j];
}

template <int N, int R>
static inline void multiply_rows(const float *x, const int8_t *panels, const float *scales, Int rows, Int width,
                                 Int outputs, Int first, float *out) {
    Int i = 0;
    for (; i + N <= rows; i += N)
        multiply_panels<N, R>(x + i * width, panels, scales, width, outputs, first, out + i * outputs);
    if constexpr (N > 1)
        multiply_rows<N / 2, R>(x + i * width, panels, scales, rows - i, width, outputs, first, out + i * outputs);
}

template <int R>
static inline void multiply_int8(const float *x, const int8_t *panels, const float *scales, Int rows, Int width,
                                 Int outputs, float *out, int threads) {
    Int count = (outputs + PANEL - 1) / PANEL, groups = count / R;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (Int g = 0; g < groups; g++)
        multiply_rows<SUMS / R, R>(x, panels, scales, rows, width, outputs, g * R * PANEL, out);
    for (Int p = groups * R; p < count; p++)
        multiply_rows<SUMS, 1>(x, panels, scales, rows, width, outputs, p * PANEL, out);
}

// out = x * matrix transposed; the matrix [outputs, width] is the whole numbers in panels times a scale for each of its
// rows.
extern "C" Status int8_linear(const float *x /* rows * width */,
                              const int8_t *panels /* count * 16 * width */,
                              const float *scales /* outputs */, Int rows, Int width, Int outputs, Int count,
                              float *out /* rows * outputs */, int threads) {
    if (count != (outputs + PANEL - 1) / PANEL) return BAD_SIZES;
    if (rows < 2)
        multiply_int8<SUMS / 2>(x, panels, scales, rows, width, outputs, out, threads);
    else if (rows < 8)
        multiply_int8<SUMS / 4>(x, panels, scales, rows, width, outputs, out, threads);
    else
        multiply_int8<SUMS / 8 ? SUMS / 8 : 1>(x, panels, scales, rows, width, outputs, out, threads);
    return OK;
}
