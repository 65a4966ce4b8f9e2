// Values: dot products of levels and 8-bit weights, each weight times its vector's scale, in steps of `weight_step`.

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
                           const uint8_t (&levels)[2][128], const float (*factor)[H], int size, float* out) {
  Table table[DIMS];
  tables<BITS>(levels, table);
  int units = 16 * groups;
  for (int u = 0; u < groups; u++)
    for (int part = 0; part < PARTS; part++)
      for (int page = 0; page < chunk.pages; page++) {
        V sums[DIMS][H] = {};
        const uint8_t* rows = chunk.page[page] + offset + u * 4 * BITS * ROW + part * W;
        for (int bundle = 0; bundle < 4; bundle++) {
#pragma GCC unroll 8
          for (int r = 0; r < BITS; r++) fetch(rows + (bundle * BITS + r) * ROW + VALUES_AHEAD);
          add_tokens<BITS, DIMS, H, 0>(rows + bundle * BITS * ROW, p + (page * 4 + bundle) * 8 * H, table, sums);
        }
#pragma GCC unroll 8
        for (int h = 0; h < H; h++)
#pragma GCC unroll 2
          for (int e = 0; e < DIMS; e++) {
            float* to = out + h * size + e * units + 16 * u + part * LANES;
            storef(to, fused(to_float(sums[e][h]), floats(factor[page][h]), loadf(to)));
          }
      }
}

// VALUE order: out[h][plane] += Σ factor[page][h] · Σ p · level, with weights p[page][four tokens][h]. A segment's
// coordinates lie in planes: the first ones of all its units, then the second ones.
template <class R, int H>
TARGET static void add_values(const Chunk& chunk, int64_t offset, const Stream<R>& at, const int32_t* p,
                              const Levels& levels, const float (*factor)[H], float* out) {
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
