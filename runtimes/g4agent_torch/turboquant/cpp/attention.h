// Attention of a few queries over some pages of one KV head, in integers. Included once for each kind of vector, which
// defines V, W and what can be done with it. `layout.py` says where the bits lie and what the names mean.
//
// Levels become integers of one common unit. Scores: dot products of levels and int8 queries; each code is looked up
// once for all queries. Softmax: float32, streaming over chunks of pages. Values: dot products of levels and 8-bit
// weights, each weight times its vector's scale over the chunk's largest.

typedef float F __attribute__((vector_size(W)));
typedef int32_t I __attribute__((vector_size(W)));
typedef uint16_t U16 __attribute__((vector_size(W)));
typedef int16_t S16 __attribute__((vector_size(W)));
typedef float F4 __attribute__((vector_size(16), may_alias));
typedef int32_t I4 __attribute__((vector_size(16), may_alias));

constexpr int LANES = W / 4;    // 32-bit lanes
constexpr int PARTS = ROW / W;  // vectors of a row

FN F floats(float x) { return F{} + x; }
FN F loadf(const float* at) { return (F)load(at); }
FN void storef(float* at, F x) { store(at, (V)x); }
FN F to_float(V x) { return __builtin_convertvector((I)x, F); }
FN V right(V x, int n) { return (V)((U16)x >> n); }
FN V left(V x, int n) { return (V)((U16)x << n); }
FN V add16(V a, V b) { return (V)((S16)a + (S16)b); }
FN V sub16(V a, V b) { return (V)((S16)a - (S16)b); }

FN float largest(F x) {
  float most = x[0];
  for (int i = 1; i < LANES; i++) most = x[i] > most ? x[i] : most;
  return most;
}
FN float total(F x) {
  float sum = 0;
  for (int i = 0; i < LANES; i++) sum += x[i];
  return sum;
}
FN F exponential(F x) {  // of x ≤ 0, to 2e-7
  x = larger(x, floats(-87.0f));
  F n = fused(x, floats(1.44269504f), floats(12582912.0f)) - 12582912.0f;
  F r = fused(n, floats(2.12194440e-4f), fused(n, floats(-0.693359375f), x));
  F p = fused(floats(1.9875691500e-4f), r, floats(1.3981999507e-3f));
  p = fused(p, r, floats(8.3334519073e-3f));
  p = fused(p, r, floats(4.1665795894e-2f));
  p = fused(p, r, floats(1.6666665459e-1f));
  p = fused(p, r, floats(0.5f));
  p = fused(p, r * r, r + 1.0f);
  I exponent = (__builtin_convertvector(n, I) + 127) << 23;
  return p * (F)exponent;
}

// Codevec N of a bundle, one code per byte; only the low bits count.
template <int BITS, int N> FN V code(const uint8_t* rows) {
  if constexpr (BITS == 4) {
    V row = load(rows + ROW * (N / 2));
    return N % 2 ? right(row, 4) : row;
  } else if constexpr (BITS == 3) {
    V low = right(load(rows + ROW * (N / 4)), 2 * (N % 4)), high = load(rows + 2 * ROW);
    return pick(words(0x03030303), low, N < 2 ? left(high, 2 - N) : right(high, N - 2));
  } else if constexpr (N < BITS) {
    return load(rows + ROW * N);
  } else {
    V gathered = right(load(rows), N);
#pragma GCC unroll 8
    for (int i = 1; i < BITS; i++)
      gathered = pick(words(0x01010101 << i), right(load(rows + ROW * i), N - i), gathered);
    return gathered;
  }
}

// Levels as tables of bytes: [segment][coordinate of the unit][code], repeated to 128.
struct Levels {
  alignas(64) uint8_t shifted[2][2][128];
  alignas(64) uint8_t straight[2][2][128];
};

template <class R> static void fill_levels(const StreamLevels& from, Levels& levels) {
  constexpr int BITS[2] = {R::MAIN, R::TAIL};
  for (int s = 0; s < 2; s++)
    for (int e = 0; e < R::DIMS; e++)
      for (int i = 0; i < 128; i++) {
        int level = from.segment[s][(e << BITS[s]) + i % (1 << BITS[s])];
        levels.straight[s][e][i] = (uint8_t)level;
        levels.shifted[s][e][i] = (uint8_t)(level + LEVEL_OFFSET);
      }
}

template <int BITS, int DIMS> FN void tables(const uint8_t (&bytes)[2][128], Table (&made)[DIMS]) {
  for (int e = 0; e < DIMS; e++) made[e] = table<BITS>(bytes[e]);
}

// ---- scores ----------------------------------------------------------------------------------------------------------

template <int BITS, int DIMS, int H, int HALF, int N>
FN void score_unit(const uint8_t* rows, const int32_t* q, const Table (&table)[DIMS], V (&sums)[TOGETHER][H]) {
#pragma GCC unroll 2
  for (int e = 0; e < DIMS; e++) {
    V levels[TOGETHER];
    levels[0] = lookup<BITS>(table[e], code<BITS, 2 * N + HALF>(rows));
    if constexpr (TOGETHER == 2) levels[1] = lookup<BITS>(table[e], code<BITS, 2 * N + 1>(rows));
#pragma GCC unroll 8
    for (int h = 0; h < H; h++) {
      V query = words(q[(N * DIMS + e) * H + h]);
#pragma GCC unroll 2
      for (int t = 0; t < TOGETHER; t++) sums[t][h] = dot8(sums[t][h], levels[t], query);
    }
  }
  if constexpr (N < 3) score_unit<BITS, DIMS, H, HALF, N + 1>(rows, q, table, sums);
}

template <int BITS, int DIMS, int H, int HALF>
FN void score_segment(const uint8_t* rows, int groups, const int32_t* q, const uint8_t (&levels)[2][128],
                      V (&sums)[TOGETHER][H]) {
  Table table[DIMS];
  tables<BITS>(levels, table);
  for (int g = 0; g < groups; g++, rows += BITS * ROW, q += 4 * DIMS * H) {
#pragma GCC unroll 8
    for (int r = 0; r < BITS; r++) __builtin_prefetch(rows + r * ROW + AHEAD);
    score_unit<BITS, DIMS, H, HALF, 0>(rows, q, table, sums);
  }
}

template <class R, int H, int HALF>
FN void score_half(const uint8_t* stream, const Stream<R>& at, int block, int part, const int32_t* q,
                   const Levels& levels, int32_t (*sums)[PAGE]) {
  constexpr int D = R::DIMS;
  V added[TOGETHER][H] = {};
  const uint8_t* main = stream + block * at.groups * R::MAIN * ROW + part * W;
  const uint8_t* tail = stream + at.tail + block * R::TAIL * ROW + part * W;
  score_segment<R::MAIN, D, H, HALF>(main, at.groups, q, levels.shifted[0], added);
  score_segment<R::TAIL, D, H, HALF>(tail, 1, q + at.groups * 4 * D * H, levels.shifted[1], added);
  for (int t = 0; t < TOGETHER; t++)
    for (int h = 0; h < H; h++) store(&sums[h][block * BLOCK + (HALF + t) * 16 + part * LANES], added[t][h]);
}

// KEY order: sums[h][token] of shifted levels times query bytes q[word][h].
template <class R, int H>
TARGET static void score_keys(const uint8_t* stream, const Stream<R>& at, const int32_t* q, const Levels& levels,
                              int32_t (*sums)[PAGE]) {
  for (int block = 0; block < PAGE / BLOCK; block++)
    for (int part = 0; part < PARTS; part++) {
      score_half<R, H, 0>(stream, at, block, part, q, levels, sums);
      if constexpr (TOGETHER == 1) score_half<R, H, 1>(stream, at, block, part, q, levels, sums);
    }
}

// ---- scores of rebuilt rotary keys -----------------------------------------------------------------------------------

FN void butterfly(V& a, V& b) {
  V sum = add16(a, b);
  b = sub16(a, b), a = sum;
}

// Four units of both halves, [4 DIMS][sign pattern] sums of 16 bits: a Hadamard transform of four coordinates each.
template <int BITS, int DIMS, int N, int END>
FN void hadamard_units(const uint8_t* rows, const Table (&table)[DIMS], V* x) {
  constexpr int32_t SIGNS[4] = {0x01010101, (int32_t)0xff01ff01, (int32_t)0xffff0101, 0x01ffff01};
  V first = code<BITS, 2 * N>(rows), second = code<BITS, 2 * N + 1>(rows);
#pragma GCC unroll 2
  for (int e = 0; e < DIMS; e++) {
    V a = lookup<BITS>(table[e], first), b = lookup<BITS>(table[e], second);
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
      V start = j ? V{} : words(-4 * LEVEL_OFFSET);
      x[j * DIMS + e] = pack16(dot8(start, a, words(SIGNS[j])), dot8(start, b, words(SIGNS[j])));
    }
  }
  if constexpr (DIMS == 2)
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) butterfly(x[2 * j], x[2 * j + 1]);
  if constexpr (N + 1 < END) hadamard_units<BITS, DIMS, N + 1, END>(rows, table, x + 4 * DIMS);
}

template <int COUNT> FN void butterflies(V* x, int from) {  // at distances from, 2 from, ... COUNT / 2
#pragma GCC unroll 4
  for (int distance = from; distance < COUNT; distance *= 2)
#pragma GCC unroll 8
    for (int i = 0; i < COUNT / 2; i++) {
      int low = i / distance * 2 * distance + i % distance;
      butterfly(x[low], x[low + distance]);
    }
}

template <int BITS, int DIMS, int FROM>
FN void hadamard16(const uint8_t* rows, const Table (&table)[DIMS], uint8_t* out) {  // 16 coordinates
  V x[16];
  hadamard_units<BITS, DIMS, FROM, FROM + 4 / DIMS>(rows, table, x);
  butterflies<16>(x, 4 * DIMS);
#pragma GCC unroll 16
  for (int i = 0; i < 16; i++) store(out + i * W, x[i]);
  if constexpr (FROM + 4 / DIMS < 4) hadamard16<BITS, DIMS, FROM + 4 / DIMS>(rows, table, out + 16 * W);
}

template <int BITS, int DIMS>
FN uint8_t* hadamard_segment(const uint8_t* rows, int groups, const uint8_t (&levels)[2][128], uint8_t* out) {
  Table table[DIMS];
  tables<BITS>(levels, table);
  for (int g = 0; g < groups; g++, rows += BITS * ROW, out += 16 * DIMS * W)
    hadamard16<BITS, DIMS, 0>(rows, table, out);
  return out;
}

// The rest of the Hadamard transform, RoPE within the page, and the dot product with queries turned to its start.
template <int RADIX, int H>
FN void turn_and_score(const uint8_t* x, const int16_t* rope, const int32_t* q, V (&sums)[2][H]) {
#pragma GCC unroll 1
  for (int low = 0; low < 16; low++) {
    V a[RADIX], b[RADIX];
#pragma GCC unroll 4
    for (int r = 0; r < RADIX; r++) a[r] = load(x + (low + 16 * r) * W), b[r] = load(x + (low + 16 * (RADIX + r)) * W);
    butterflies<RADIX>(a, 1);
    butterflies<RADIX>(b, 1);
#pragma GCC unroll 4
    for (int r = 0; r < RADIX; r++) {
      const int16_t* m = rope + (low + 16 * r) * 4 * BLOCK;
      V first = add16(scale16(a[r], load(m)), scale16(b[r], load(m + BLOCK)));
      V second = add16(scale16(a[r], load(m + 2 * BLOCK)), scale16(b[r], load(m + 3 * BLOCK)));
      V near = low16(first, second), far = high16(first, second);
#pragma GCC unroll 8
      for (int h = 0; h < H; h++) {
        V query = words(q[h * 16 * RADIX + low + 16 * r]);
        sums[0][h] = dot16(sums[0][h], near, query);
        sums[1][h] = dot16(sums[1][h], far, query);
      }
    }
  }
}

// KEY order: sums[h][token] of rebuilt keys times queries of 16 bits, q[h][pair].
template <class R, int H>
TARGET static void score_rotary(const uint8_t* stream, const Stream<R>& at, const int16_t* rope, const int32_t* q,
                                const Levels& levels, int32_t (*sums)[PAGE]) {
  alignas(64) uint8_t x[MAX_ROTARY * W];
  int pairs = at.size / 2;
  for (int block = 0; block < PAGE / BLOCK; block++)
    for (int part = 0; part < PARTS; part++) {
      const uint8_t* main = stream + block * at.groups * R::MAIN * ROW + part * W;
      const uint8_t* tail = stream + at.tail + block * R::TAIL * ROW + part * W;
      uint8_t* rest = hadamard_segment<R::MAIN, R::DIMS>(main, at.groups, levels.shifted[0], x);
      hadamard_segment<R::TAIL, R::DIMS>(tail, 1, levels.shifted[1], rest);
      V added[2][H] = {};
      const int16_t* turn = rope + block * pairs * 4 * BLOCK + part * (W / 2);
      if (pairs == 64) turn_and_score<4, H>(x, turn, q, added);
      else if (pairs == 32) turn_and_score<2, H>(x, turn, q, added);
      else turn_and_score<1, H>(x, turn, q, added);
      for (int t = 0; t < 2; t++)
        for (int h = 0; h < H; h++) store(&sums[h][block * BLOCK + t * 16 + part * LANES], added[t][h]);
    }
}

// ---- values ----------------------------------------------------------------------------------------------------------

template <int BITS, int DIMS, int H, int N>
FN void add_tokens(const uint8_t* rows, const int32_t* p, const Table (&table)[DIMS], V (&sums)[DIMS][H]) {
  V codes = code<BITS, N>(rows);
  V levels[DIMS];
#pragma GCC unroll 2
  for (int e = 0; e < DIMS; e++) levels[e] = lookup<BITS>(table[e], codes);
#pragma GCC unroll 8
  for (int h = 0; h < H; h++) {
    V weights = words(p[N * H + h]);
#pragma GCC unroll 2
    for (int e = 0; e < DIMS; e++) sums[e][h] = dot8(sums[e][h], weights, levels[e]);
  }
  if constexpr (N < 7) add_tokens<BITS, DIMS, H, N + 1>(rows, p, table, sums);
}

template <int BITS, int DIMS, int H>
FN void add_values_segment(const Chunk& chunk, int64_t offset, int groups, const int32_t* p,
                           const uint8_t (&levels)[2][128], const float* factor, int size, float* out) {
  Table table[DIMS];
  tables<BITS>(levels, table);
  int units = 16 * groups;
  for (int u = 0; u < groups; u++)
    for (int part = 0; part < PARTS; part++) {
      V sums[DIMS][H] = {};
      for (int page = 0; page < chunk.pages; page++) {
        const uint8_t* rows = chunk.page[page] + offset + u * 4 * BITS * ROW + part * W;
        for (int bundle = 0; bundle < 4; bundle++) {
#pragma GCC unroll 8
          for (int r = 0; r < BITS; r++) __builtin_prefetch(rows + (bundle * BITS + r) * ROW + AHEAD);
          add_tokens<BITS, DIMS, H, 0>(rows + bundle * BITS * ROW, p + (page * 4 + bundle) * 8 * H, table, sums);
        }
      }
#pragma GCC unroll 8
      for (int h = 0; h < H; h++)
#pragma GCC unroll 2
        for (int e = 0; e < DIMS; e++) {
          float* to = out + h * size + e * units + 16 * u + part * LANES;
          storef(to, loadf(to) + to_float(sums[e][h]) * factor[h]);
        }
    }
}

// VALUE order: out[h][plane] += factor[h] · Σ p · level, with weights p[four tokens][h]. A segment's coordinates lie
// in planes: the first ones of all its units, then the second ones.
template <class R, int H>
TARGET static void add_values(const Chunk& chunk, int64_t offset, const Stream<R>& at, const int32_t* p,
                              const Levels& levels, const float* factor, float* out) {
  constexpr int D = R::DIMS;
  add_values_segment<R::MAIN, D, H>(chunk, offset, at.groups, p, levels.straight[0], factor, at.size, out);
  add_values_segment<R::TAIL, D, H>(chunk, offset + at.tail, 1, p, levels.straight[1], factor, at.size,
                                    out + at.groups * 16 * D);
}

// Rows of a group's four bundles, regrouped so that the four bytes of a lane are one unit of four blocks: to[k][row],
// where lane 4 L + j belongs to unit j and token 4 L + k of each half block.
template <int BITS> FN void regroup(const uint8_t* rows, int64_t stride, uint8_t* to) {
#pragma GCC unroll 8
  for (int r = 0; r < BITS; r++)
    for (int part = 0; part < PARTS; part++) {
      const uint8_t* from = rows + r * ROW + part * W;
      for (int block = 0; block < 4; block++) __builtin_prefetch(from + block * stride + BITS * ROW);
      uint8_t* at = to + r * ROW + part * W;
      V x0 = load(from), x1 = load(from + stride), x2 = load(from + 2 * stride), x3 = load(from + 3 * stride);
      V a = low8(x0, x1), b = high8(x0, x1), c = low8(x2, x3), d = high8(x2, x3);
      store(at, low16(a, c)), store(at + BITS * ROW, high16(a, c));
      store(at + 2 * BITS * ROW, low16(b, d)), store(at + 3 * BITS * ROW, high16(b, d));
    }
}

// One register per query for units U and U + 1 (or for both coordinates of pair U).
template <int BITS, int DIMS, int H, int U, int HALF>
FN void add_lanes(const uint8_t* rows, const uint8_t* p, const Table (&table)[DIMS], V (&sums)[2][H]) {
  V levels[2];
  levels[0] = lookup<BITS>(table[0], code<BITS, 2 * U + HALF>(rows));
  if constexpr (DIMS == 2) levels[1] = lookup<BITS>(table[1], code<BITS, 2 * U + HALF>(rows));
  else levels[1] = lookup<BITS>(table[0], code<BITS, 2 * U + 2 + HALF>(rows));
#pragma GCC unroll 8
  for (int h = 0; h < H; h++) {
    V weights = load(p + h * ROW);
#pragma GCC unroll 2
    for (int e = 0; e < 2; e++) sums[e][h] = dot8(sums[e][h], weights, levels[e]);
  }
}

template <int BITS, int DIMS, int H, int U>
FN void add_group(const uint8_t* rows, int pages, const uint8_t* p, const Table (&table)[DIMS], const float* factor,
                  int size, int units, float* out) {
  for (int part = 0; part < PARTS; part++) {
    V sums[2][H] = {};
    const uint8_t *from = rows + part * W, *weights = p + part * W;
    for (int k = 0; k < 4 * pages; k++, from += BITS * ROW, weights += 2 * H * ROW) {
      add_lanes<BITS, DIMS, H, U, 0>(from, weights, table, sums);
      add_lanes<BITS, DIMS, H, U, 1>(from, weights + H * ROW, table, sums);
    }
#pragma GCC unroll 8
    for (int h = 0; h < H; h++)
#pragma GCC unroll 2
      for (int e = 0; e < 2; e++) {
        float* to = out + h * size + (DIMS == 2 ? e * units + 4 * U : 4 * (U + e));
        *(F4*)to += __builtin_convertvector((I4)fold(sums[e][h]), F4) * factor[h];
      }
  }
  if constexpr (U + 2 / DIMS < 4)
    add_group<BITS, DIMS, H, U + 2 / DIMS>(rows, pages, p, table, factor, size, units, out);
}

template <int BITS, int DIMS, int H>
FN void add_regrouped_segment(const Chunk& chunk, int64_t offset, int groups, const uint8_t* p,
                              const uint8_t (&levels)[2][128], const float* factor, int size, float* out) {
  alignas(64) uint8_t rows[CHUNK * 4 * BITS * ROW];
  Table table[DIMS];
  tables<BITS>(levels, table);
  for (int g = 0; g < groups; g++) {
    for (int page = 0; page < chunk.pages; page++)
      regroup<BITS>(chunk.page[page] + offset + g * BITS * ROW, groups * BITS * ROW, rows + page * 4 * BITS * ROW);
    add_group<BITS, DIMS, H, 0>(rows, chunk.pages, p, table, factor, size, 16 * groups, out + 16 * g);
  }
}

// KEY order: as `add_values`, with weights p[page][k][half][h][lane], made by `spread_weights`.
template <class R, int H>
TARGET static void add_regrouped(const Chunk& chunk, int64_t offset, const Stream<R>& at, const uint8_t* p,
                                 const Levels& levels, const float* factor, int size, float* out) {
  constexpr int D = R::DIMS;
  add_regrouped_segment<R::MAIN, D, H>(chunk, offset, at.groups, p, levels.straight[0], factor, size, out);
  add_regrouped_segment<R::TAIL, D, H>(chunk, offset + at.tail, 1, p, levels.straight[1], factor, size,
                                       out + at.groups * 16 * D);
}

// ---- softmax ---------------------------------------------------------------------------------------------------------

// Scales of a stream of the chunk, [page][token].
TARGET static void unpack_scales(const Chunk& chunk, int64_t offset, float* scales) {
  for (int i = 0; i < chunk.pages * PAGE; i += LANES)
    storef(scales + i, (F)from_half((const uint16_t*)(chunk.page[i / PAGE] + offset) + i % PAGE));
}

// What one step of weights times scales in bytes is worth.
TARGET static float weight_step(const float* weights, const float* scales, int tokens) {
  F most = floats(1e-30f);
  for (int i = 0; i < tokens; i += LANES) most = larger(most, loadf(weights + i) * loadf(scales + i));
  return largest(most) / 255;
}

FN I weight_bytes(const float* weights, const float* scales, F steps) {
  return __builtin_convertvector(fused(loadf(weights) * loadf(scales), steps, floats(0.5f)), I);
}

// For VALUE order: four tokens' weights to a word, p[word][h].
template <int H>
TARGET static void pack_weights(const float* weights, const float* scales, int tokens, float step, int h, int32_t* p) {
  alignas(64) int32_t bytes[LANES];
  for (int i = 0; i < tokens; i += LANES) {
    store(bytes, (V)weight_bytes(weights + i, scales + i, floats(1 / step)));
    for (int j = 0; j < LANES; j += 4)
      p[(i + j) / 4 * H + h] = bytes[j] | bytes[j + 1] << 8 | bytes[j + 2] << 16 | bytes[j + 3] << 24;
  }
}

// For KEY order: see `regroup`.
template <int H>
TARGET static void spread_weights(const float* weights, const float* scales, int pages, float step, int h, uint8_t* p) {
  F steps = floats(1 / step);
  for (int page = 0; page < pages; page++)
    for (int half = 0; half < 2; half++)
      for (int part = 0; part < PARTS; part++) {
        int at = page * PAGE + half * 16 + part * LANES;
        I blocks = weight_bytes(weights + at, scales + at, steps);
#pragma GCC unroll 3
        for (int block = 1; block < 4; block++)
          blocks |= weight_bytes(weights + at + block * BLOCK, scales + at + block * BLOCK, steps) << 8 * block;
        uint8_t* to = p + ((page * 8 + half) * H + h) * ROW + part * W;
        store(to, spread<0>((V)blocks)), store(to + 2 * H * ROW, spread<1>((V)blocks));
        store(to + 4 * H * ROW, spread<2>((V)blocks)), store(to + 6 * H * ROW, spread<3>((V)blocks));
      }
}

// scores[h][page][token] = or += factor[h] · scale[token] · (sums[h][token] + offset[h])
template <int H, bool ADD>
TARGET static void put_scores(const int32_t (*sums)[PAGE], const uint8_t* scales, const float (&factor)[H],
                              const float (&offset)[H], int page, float (*scores)[CHUNK * PAGE]) {
  for (int i = 0; i < PAGE; i += LANES) {
    F scale = (F)from_half((const uint16_t*)scales + i);
#pragma GCC unroll 8
    for (int h = 0; h < H; h++) {
      float* to = scores[h] + page * PAGE + i;
      F sum = to_float(load(&sums[h][i])) + offset[h], times = scale * factor[h];
      storef(to, ADD ? fused(sum, times, loadf(to)) : sum * times);
    }
  }
}

// Turns scores into exp(score − maximum) in place; what was summed before shrinks by the returned factor.
TARGET static float soften(float* scores, int tokens, float& maximum, float& sum) {
  F most = floats(maximum), added = floats(0);
  for (int i = 0; i < tokens; i += LANES) most = larger(most, loadf(scores + i));
  float now = largest(most), shrunk = expf(maximum - now);
  for (int i = 0; i < tokens; i += LANES) {
    F x = exponential(loadf(scores + i) - now);
    storef(scores + i, x);
    added += x;
  }
  maximum = now, sum = sum * shrunk + total(added);
  return shrunk;
}

// ---- queries ---------------------------------------------------------------------------------------------------------

// Query bytes as score_keys wants them; step is what one is worth, offset what the shift of the levels adds.
template <class R, int H>
static void quantise_query(const float* query, int h, const Stream<R>& at, int32_t* q, float& step, float& offset) {
  constexpr int D = R::DIMS;
  float most = 1e-30f;
  for (int i = 0; i < at.size; i++) most = fmaxf(most, fabsf(query[i]));
  step = most / 127;
  int total = 0;
  int8_t* bytes = (int8_t*)q;
  for (int i = 0; i < at.size; i++) {
    int x = (int)lrintf(query[i] / step), unit = i / D;
    total += x;
    bytes[((unit / 4 * D + i % D) * H + h) * 4 + unit % 4] = (int8_t)x;
  }
  offset = (float)(-LEVEL_OFFSET * total);
}

// Rotary queries turned back by the angle of a page's first position, q[h][pair]; turned[h] holds first members of
// pairs, then second.
template <int H>
TARGET static void turn_queries(const float* turned, const float* steps, int pairs, const float* cosine,
                                const float* sine, int32_t* q) {
  for (int h = 0; h < H; h++)
    for (int i = 0; i < pairs; i += LANES) {
      F first = loadf(turned + h * 2 * pairs + i) * (1 / steps[h]), c = loadf(cosine + i);
      F second = loadf(turned + h * 2 * pairs + pairs + i) * (1 / steps[h]), s = loadf(sine + i);
      I a = __builtin_convertvector(first * c + second * s, I), b = __builtin_convertvector(second * c - first * s, I);
      store(q + h * pairs + i, (V)((a & 0xffff) | b << 16));
    }
}

// ---- a task ----------------------------------------------------------------------------------------------------------

template <int H> struct Workspace {
  alignas(64) int32_t sums[H][PAGE];
  alignas(64) float scores[H][CHUNK * PAGE];
  alignas(64) float scales[2][CHUNK * PAGE];
  alignas(64) uint8_t weights[2][CHUNK * 8 * H * ROW];
  alignas(64) int32_t q[MAX_SIZE / 4 * H];
  alignas(64) int32_t q16[MAX_ROTARY / 2 * H];
  alignas(64) float out[H * MAX_SIZE];
  float cosine[MAX_ROTARY / 2], sine[MAX_ROTARY / 2], step_cosine[MAX_ROTARY / 2], step_sine[MAX_ROTARY / 2];
  float query_step[H], query_offset[H], turned_step[H], maximum[H], sum[H];
  Levels levels[2];  // of both streams
};

// From planes to coordinates, see `add_values`.
template <class R> static void unfold(const float* from, const Stream<R>& at, float* to) {
  constexpr int D = R::DIMS;
  int main = at.groups * 16;
  for (int i = 0; i < at.size; i++) {
    bool tail = i >= main * D;
    int start = tail ? main * D : 0, units = tail ? 16 : main, unit = (i - start) / D;
    to[i] = from[start + i % D * units + unit];
  }
}

// Cosines and sines of a page's first position, and of a page's length.
template <int H> static void set_angles(const Call& call, int64_t page, Workspace<H>& work) {
  for (int i = 0; i < call.second_size / 2; i++) {
    double start = call.frequencies[i] * (double)(call.first_position + page * PAGE), step = call.frequencies[i] * PAGE;
    work.cosine[i] = (float)cos(start), work.sine[i] = (float)sin(start);
    work.step_cosine[i] = (float)cos(step), work.step_sine[i] = (float)sin(step);
  }
}

template <int H> TARGET static void next_angles(int pairs, Workspace<H>& work) {
  for (int i = 0; i < pairs; i++) {
    float c = work.cosine[i], s = work.sine[i];
    work.cosine[i] = c * work.step_cosine[i] - s * work.step_sine[i];
    work.sine[i] = s * work.step_cosine[i] + c * work.step_sine[i];
  }
}

// Rates A and B of the head's streams: of keys and values, or where only values are kept of their dimensions without
// and with positions.
template <class A, class B, bool VALUE_ONLY, int H>
TARGET static void score_page(const Call& call, const Task& task, const uint8_t* head, Workspace<H>& work, int page) {
  Stream<A> first(call.first_size);
  score_keys<A, H>(head, first, work.q, work.levels[0], work.sums);
  float factor[H];
  for (int h = 0; h < H; h++) factor[h] = work.query_step[h] * call.levels[0].unit;
  put_scores<H, false>(work.sums, head + first.scales, factor, work.query_offset, page, work.scores);
  if constexpr (VALUE_ONLY) {
    Stream<B> second(call.second_size);
    float none[H] = {};
    int pairs = call.second_size / 2;
    turn_queries<H>(task.turned, work.turned_step, pairs, work.cosine, work.sine, work.q16);
    next_angles(pairs, work);
    score_rotary<B, H>(head + first.bytes, second, call.rope, work.q16, work.levels[1], work.sums);
    for (int h = 0; h < H; h++) factor[h] = work.turned_step[h] * call.levels[1].unit * call.rope_unit;
    put_scores<H, true>(work.sums, head + first.bytes + second.scales, factor, none, page, work.scores);
  }
}

// Adds what else belongs to the scores of a chunk.
template <int H> TARGET static void add_bias(const Call& call, const Task& task, int64_t page, int tokens, Workspace<H>& work) {
  for (int h = 0; h < H; h++) {
    const float* bias = task.bias + h * call.pages * PAGE + page * PAGE;
    for (int i = 0; i < tokens; i += LANES) storef(work.scores[h] + i, loadf(work.scores[h] + i) + loadf(bias + i));
  }
}

// Asks for what the first passes over a page read, and nothing before them asks for: its start, tails and scales.
template <class A, class B> FN void prefetch_page(const Call& call, const uint8_t* head) {
  Stream<A> first(call.first_size);
  Stream<B> second(call.second_size);
  for (int i = 0; i < AHEAD; i += ROW) __builtin_prefetch(head + i, 0, 2);
  for (int64_t i = first.tail; i < first.bytes; i += ROW) __builtin_prefetch(head + i, 0, 2);
  for (int64_t i = second.tail; i < second.bytes; i += ROW) __builtin_prefetch(head + first.bytes + i, 0, 2);
}

// Adds a chunk's values, whose scores are in place.
template <class A, class B, bool VALUE_ONLY, int H>
TARGET static void weigh_chunk(const Call& call, const Chunk& chunk, int size, Workspace<H>& work) {
  Stream<A> first(call.first_size);
  Stream<B> second(call.second_size);
  int tokens = chunk.pages * PAGE;
  if (VALUE_ONLY) unpack_scales(chunk, first.scales, work.scales[0]);
  unpack_scales(chunk, first.bytes + second.scales, work.scales[1]);
  float factors[2][H];
  for (int h = 0; h < H; h++) {
    float* weights = work.scores[h];
    float shrunk = soften(weights, tokens, work.maximum[h], work.sum[h]);
    if (shrunk != 1)
      for (int i = 0; i < size; i++) work.out[h * size + i] *= shrunk;
    for (int s = VALUE_ONLY ? 0 : 1; s < 2; s++) {
      const float* scales = work.scales[s];
      float step = weight_step(weights, scales, tokens);
      factors[s][h] = call.levels[s].unit * step;
      if constexpr (VALUE_ONLY) spread_weights<H>(weights, scales, chunk.pages, step, h, work.weights[s]);
      else pack_weights<H>(weights, scales, tokens, step, h, (int32_t*)work.weights[s]);
    }
  }
  if constexpr (VALUE_ONLY) {
    add_regrouped<A, H>(chunk, 0, first, work.weights[0], work.levels[0], factors[0], size, work.out);
    add_regrouped<B, H>(chunk, first.bytes, second, work.weights[1], work.levels[1], factors[1], size,
                        work.out + first.size);
  } else {
    add_values<B, H>(chunk, first.bytes, second, (const int32_t*)work.weights[1], work.levels[1], factors[1], work.out);
  }
}

// H queries of one KV head over the pages of a task: maximum, sum and unnormalised output of each.
template <class A, class B, bool VALUE_ONLY, int H> TARGET static void attend(const Call& call, const Task& task) {
  Stream<A> first(call.first_size);
  Stream<B> second(call.second_size);
  int size = VALUE_ONLY ? first.size + second.size : second.size;
  auto* memory = aligned_alloc(64, (sizeof(Workspace<H>) + 63) / 64 * 64);
  auto& work = *(Workspace<H>*)memory;
  fill_levels<A>(call.levels[0], work.levels[0]);
  fill_levels<B>(call.levels[1], work.levels[1]);
  for (int h = 0; h < H; h++) {
    quantise_query<A, H>(task.query + h * first.size, h, first, work.q, work.query_step[h], work.query_offset[h]);
    work.maximum[h] = -INFINITY, work.sum[h] = 0;
    if (VALUE_ONLY) {
      const float* turned = task.turned + h * second.size;
      float most = 1e-30f;
      for (int i = 0; i < second.size / 2; i++) most = fmaxf(most, hypotf(turned[i], turned[second.size / 2 + i]));
      work.turned_step[h] = most / TURNED_MAX;
    }
  }
  memset(work.out, 0, sizeof(float) * H * size);
  if (VALUE_ONLY) set_angles(call, task.first, work);
  for (int64_t start = task.first; start < task.last; start += CHUNK) {
    Chunk chunk{(int)(task.last - start < CHUNK ? task.last - start : CHUNK), {}};
    for (int page = 0; page < chunk.pages; page++) {
      chunk.page[page] = call.page[start + page] + task.head * call.head_bytes;
      if (start + page + 1 < task.last)
        prefetch_page<A, B>(call, call.page[start + page + 1] + task.head * call.head_bytes);
      score_page<A, B, VALUE_ONLY>(call, task, chunk.page[page], work, page);
    }
    if (task.bias) add_bias(call, task, start, chunk.pages * PAGE, work);
    weigh_chunk<A, B, VALUE_ONLY>(call, chunk, size, work);
  }
  for (int h = 0; h < H; h++) {
    float *from = work.out + h * size, *to = task.out + h * size;
    task.maximum[h] = work.maximum[h], task.sum[h] = work.sum[h];
    if (VALUE_ONLY) unfold(from, first, to);
    unfold(VALUE_ONLY ? from + first.size : from, second, VALUE_ONLY ? to + first.size : to);
  }
  free(memory);
}

template <class A, class B, bool VALUE_ONLY> struct Attend {
  static void run(const Call& call, const Task& task) {
    if (task.count == 8) attend<A, B, VALUE_ONLY, 8>(call, task);
    else if (task.count == 4) attend<A, B, VALUE_ONLY, 4>(call, task);
    else attend<A, B, VALUE_ONLY, 1>(call, task);
  }
};

static void attend_any(const Call& call, const Task& task) { dispatch<Attend>(call, task); }

#undef TARGET
#undef FN
