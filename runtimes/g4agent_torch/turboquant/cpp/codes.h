// Vectors of numbers, and codes as bytes. `layout.py` says where the bits lie and what the names mean.

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
FN F rounded(F x) { return x + 12582912.0f - 12582912.0f; }  // to even; of less than 2^22
FN V right(V x, int n) { return (V)((U16)x >> n); }
FN V left(V x, int n) { return (V)((U16)x << n); }
FN V add16(V a, V b) { return (V)((S16)a + (S16)b); }
FN V sub16(V a, V b) { return (V)((S16)a - (S16)b); }

// Into the second-level cache: the first can wait for too few lines at once for what comes from memory.
FN void fetch(const uint8_t* at) { __builtin_prefetch(at, 0, 2); }

FN F exponential(F x) {  // of x ≤ 0, to 2e-7
  x = larger(x, floats(-87.0f));
  F n = fused(x, floats(1.44269504f), floats(12582912.0f)) - 12582912.0f;  // rounded
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

static void take_differences(uint8_t (&table)[128]) {  // for `lookup`, see DIFFERENCES
  for (int i = 127; i >= 16; i--) table[i] ^= table[i - 16];
}

template <class R> static void fill_levels(const StreamLevels& from, Levels& levels) {
  constexpr int BITS[2] = {R::MAIN, R::TAIL};
  for (int s = 0; s < 2; s++)
    for (int e = 0; e < R::DIMS; e++) {
      for (int i = 0; i < 128; i++) {
        int level = from.segment[s][(e << BITS[s]) + i % (1 << BITS[s])];
        levels.straight[s][e][i] = (uint8_t)level;
        levels.shifted[s][e][i] = (uint8_t)(level + LEVEL_OFFSET);
      }
      if (DIFFERENCES) take_differences(levels.straight[s][e]), take_differences(levels.shifted[s][e]);
    }
}

template <int BITS, int DIMS> FN void tables(const uint8_t (&bytes)[2][128], Table (&made)[DIMS]) {
  for (int e = 0; e < DIMS; e++) made[e] = table<BITS>(bytes[e]);
}
