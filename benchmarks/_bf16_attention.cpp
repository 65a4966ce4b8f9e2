// Decode attention over uncompressed bfloat16, as fast as the processor's own bfloat16 instruction allows: what a
// compressed cache has to be held against, beside PyTorch. `_bf16_attention.py` compiles this file and calls it.
//
// The cache is one stream of memory, in the order in which it is read, and every byte of it is read once for all query
// heads. Each KV head is a row of blocks of 128 tokens. A block holds its keys, then its values, both as tiles that
// multiply alike: rows of 32 lanes of 2 numbers, so that a row is 2 vectors and a lane is what `vdpbf16ps` sums up.
//
// keys    [128 / 32 tiles, size / 2 rows, 32 tokens, 2 dimensions]
// values  [size / 32 tiles, 128 / 2 rows, 32 dimensions, 2 tokens]

#include <immintrin.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#include <initializer_list>

#define TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,fma")))
#define FN TARGET __attribute__((always_inline)) static inline

constexpr int BLOCK = 128;         // tokens that share a step of the softmax
constexpr int LANES = 32;          // of a tile
constexpr int AHEAD = 8192;        // bytes fetched before they are needed
constexpr int MAX_SIZE = 512;      // dimensions of a head
constexpr int PAIRS = MAX_SIZE / 2 + 16;  // pairs of a row of factors; 16 more keep rows apart in the first cache

template <int H> struct Factors { int32_t pair[H][PAIRS]; };  // of the query heads: two bfloat16 each

// sum[h] += factors[h] · tile, [rows] · [rows, 32]
template <int H> FN void multiply(const uint16_t* tile, int rows, const Factors<H>& factors, __m512 (&sum)[H][2]) {
  for (int row = 0; row < rows; row++, tile += 2 * LANES) {
    _mm_prefetch((const char*)tile + AHEAD, _MM_HINT_T0);
    _mm_prefetch((const char*)tile + AHEAD + 64, _MM_HINT_T0);
    const __m512bh low = (__m512bh)_mm512_loadu_si512(tile), high = (__m512bh)_mm512_loadu_si512(tile + LANES);
#pragma GCC unroll 8
    for (int h = 0; h < H; h++) {
      const __m512bh factor = (__m512bh)_mm512_set1_epi32(factors.pair[h][row]);
      sum[h][0] = _mm512_dpbf16_ps(sum[h][0], low, factor);
      sum[h][1] = _mm512_dpbf16_ps(sum[h][1], high, factor);
    }
  }
}

// e^x for x ≤ 0, relative error 3e-6: far below the rounding to bfloat16 that follows
FN __m512 exponential(__m512 x) {
  const __m512 power = _mm512_mul_ps(x, _mm512_set1_ps(1.44269504f));
  const __m512 whole = _mm512_roundscale_ps(power, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m512 rest = _mm512_sub_ps(power, whole);
  __m512 y = _mm512_set1_ps(1.3333558e-3f);
  for (float term : {9.6181291e-3f, 5.5504109e-2f, 0.24022651f, 0.69314718f, 1.0f})
    y = _mm512_fmadd_ps(y, rest, _mm512_set1_ps(term));
  return _mm512_scalef_ps(y, whole);
}

struct Softmax { float maximum, sum; };

// Scores of a block become factors of its values; returns what the output so far has to be multiplied with.
FN float advance(Softmax& so_far, const float* scores, int32_t* factors) {
  __m512 top = _mm512_loadu_ps(scores), sum = _mm512_setzero_ps();
  for (int i = 16; i < BLOCK; i += 16) top = _mm512_max_ps(top, _mm512_loadu_ps(scores + i));
  const float maximum = fmaxf(so_far.maximum, _mm512_reduce_max_ps(top)), fade = expf(so_far.maximum - maximum);
  for (int i = 0; i < BLOCK; i += 16) {
    const __m512 p = exponential(_mm512_sub_ps(_mm512_loadu_ps(scores + i), _mm512_set1_ps(maximum)));
    sum = _mm512_add_ps(sum, p);
    _mm256_storeu_si256((__m256i*)(factors + i / 2), (__m256i)_mm512_cvtneps_pbh(p));
  }
  so_far = {maximum, so_far.sum * fade + _mm512_reduce_add_ps(sum)};
  return fade;
}

// One KV head: query and out [H, size]
template <int H> TARGET static void attend(const uint16_t* query, const uint16_t* cache, int size, int blocks, float* out) {
  alignas(64) Factors<H> queries, weights;
  alignas(64) float scores[H][BLOCK], fade[H];
  Softmax so_far[H];
  for (int h = 0; h < H; h++) {
    memcpy(queries.pair[h], query + h * size, size * sizeof(uint16_t));
    so_far[h] = {-INFINITY, 0};
  }
  memset(out, 0, H * size * sizeof(float));
  for (; blocks > 0; blocks--) {
    for (int token = 0; token < BLOCK; token += LANES, cache += LANES * size) {
      __m512 sum[H][2] = {};
      multiply<H>(cache, size / 2, queries, sum);
      for (int h = 0; h < H; h++)
        for (int i = 0; i < 2; i++) _mm512_storeu_ps(&scores[h][token + 16 * i], sum[h][i]);
    }
    for (int h = 0; h < H; h++) fade[h] = advance(so_far[h], scores[h], weights.pair[h]);
    for (int dim = 0; dim < size; dim += LANES, cache += LANES * BLOCK) {
      __m512 sum[H][2];
      for (int h = 0; h < H; h++)
        for (int i = 0; i < 2; i++)
          sum[h][i] = _mm512_mul_ps(_mm512_loadu_ps(out + h * size + dim + 16 * i), _mm512_set1_ps(fade[h]));
      multiply<H>(cache, BLOCK / 2, weights, sum);
      for (int h = 0; h < H; h++)
        for (int i = 0; i < 2; i++) _mm512_storeu_ps(out + h * size + dim + 16 * i, sum[h][i]);
    }
  }
  for (int h = 0; h < H; h++)
    for (int dim = 0; dim < size; dim++) out[h * size + dim] /= so_far[h].sum;
}

extern "C" int bf16_runs_here() {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("fma");
}

// query bfloat16 [heads, group, size], scaled; cache bfloat16 [heads, blocks, 2 · 128 · size]; out float32, as query.
// group is 4 or 8; size a multiple of 32, at most 512.
extern "C" void bf16_attention(
    const uint16_t* query, const uint16_t* cache, int heads, int group, int size, int blocks, float* out) {
  for (int head = 0; head < heads; head++) {
    const int64_t row = (int64_t)head * group * size;
    const uint16_t* of_head = cache + (int64_t)head * blocks * 2 * BLOCK * size;
    (group == 4 ? attend<4> : attend<8>)(query + row, of_head, size, blocks, out + row);
  }
}
