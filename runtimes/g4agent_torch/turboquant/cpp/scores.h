// Scores: dot products of levels and int8 queries. Each code is looked up once for all queries.

template <int BITS, int DIMS, int H, int HALF, int N>
FN void score_unit(const uint8_t* rows, const int32_t* q, const Table (&table)[DIMS], V (&sums)[TOGETHER<H>][H]) {
#pragma GCC unroll 2
  for (int e = 0; e < DIMS; e++) {
    V levels[TOGETHER<H>];
    levels[0] = lookup<BITS>(table[e], code<BITS, 2 * N + HALF>(rows));
    if constexpr (TOGETHER<H> == 2) levels[1] = lookup<BITS>(table[e], code<BITS, 2 * N + 1>(rows));
#pragma GCC unroll 8
    for (int h = 0; h < H; h++) {
      V query = words(q[(N * DIMS + e) * H + h]);
#pragma GCC unroll 2
      for (int t = 0; t < TOGETHER<H>; t++) sums[t][h] = dot8(sums[t][h], levels[t], query);
    }
  }
  if constexpr (N < 3) score_unit<BITS, DIMS, H, HALF, N + 1>(rows, q, table, sums);
}

template <int BITS, int DIMS, int H, int HALF>
FN void score_segment(const uint8_t* rows, int groups, const int32_t* q, const uint8_t (&levels)[2][128],
                      V (&sums)[TOGETHER<H>][H]) {
  Table table[DIMS];
  tables<BITS>(levels, table);
  for (int g = 0; g < groups; g++, rows += BITS * ROW, q += 4 * DIMS * H) {
#pragma GCC unroll 8
    for (int r = 0; r < BITS; r++) fetch(rows + r * ROW + KEYS_AHEAD);
    score_unit<BITS, DIMS, H, HALF, 0>(rows, q, table, sums);
  }
}

template <class R, int H, int HALF>
FN void score_half(const uint8_t* stream, const Stream<R>& at, int block, int part, const int32_t* q,
                   const Levels& levels, int32_t (*sums)[PAGE]) {
  constexpr int D = R::DIMS;
  V added[TOGETHER<H>][H] = {};
  const uint8_t* main = stream + block * at.groups * R::MAIN * ROW + part * W;
  const uint8_t* tail = stream + at.tail + block * R::TAIL * ROW + part * W;
  score_segment<R::MAIN, D, H, HALF>(main, at.groups, q, levels.shifted[0], added);
  score_segment<R::TAIL, D, H, HALF>(tail, 1, q + at.groups * 4 * D * H, levels.shifted[1], added);
  for (int t = 0; t < TOGETHER<H>; t++)
    for (int h = 0; h < H; h++) store(&sums[h][block * BLOCK + (HALF + t) * 16 + part * LANES], added[t][h]);
}

// KEY order: sums[h][token] of shifted levels times query bytes q[word][h]. A part of what the next page begins with
// is asked for with each block, as memory answers few requests at a time.
template <class R, int H>
TARGET static void score_keys(const uint8_t* stream, const Stream<R>& at, const int32_t* q, const Levels& levels,
                              int32_t (*sums)[PAGE], const uint8_t* next) {
  constexpr int SHARE = KEYS_AHEAD / (PAGE / BLOCK);
  for (int block = 0; block < PAGE / BLOCK; block++) {
    for (int i = 0; next && i < SHARE; i += ROW) fetch(next + block * SHARE + i);
    for (int part = 0; part < PARTS; part++) {
      score_half<R, H, 0>(stream, at, block, part, q, levels, sums);
      if constexpr (TOGETHER<H> == 1) score_half<R, H, 1>(stream, at, block, part, q, levels, sums);
    }
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
  for (int g = 0; g < groups; g++, rows += BITS * ROW, out += 16 * DIMS * W) {
#pragma GCC unroll 8
    for (int r = 0; r < BITS; r++) fetch(rows + r * ROW + KEYS_AHEAD / 2);
    hadamard16<BITS, DIMS, 0>(rows, table, out);
  }
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
