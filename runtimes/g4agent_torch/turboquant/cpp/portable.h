// Vectors of 16 bytes in plain C++, for any processor; the compiler makes of it what it can.
#define TARGET
#define FN __attribute__((always_inline)) static inline

typedef uint8_t V __attribute__((vector_size(16)));
typedef int16_t V16 __attribute__((vector_size(16)));
typedef int32_t V32 __attribute__((vector_size(16)));
constexpr int W = 16;
constexpr int TOGETHER = 2;
constexpr int LEVEL_MAX = 127;
constexpr int LEVEL_OFFSET = 128;

struct Table { const uint8_t* bytes; };

template <int BITS> FN Table table(const uint8_t* bytes) { return {bytes}; }
template <int BITS> FN V lookup(const Table& table, V codes) {
  V found;
  for (int i = 0; i < W; i++) found[i] = table.bytes[codes[i] & ((1 << BITS) - 1)];
  return found;
}

FN V load(const void* at) { V x; memcpy(&x, at, W); return x; }
FN void store(void* at, V x) { memcpy(at, &x, W); }
FN V words(int32_t x) { return (V)(V32{x, x, x, x}); }
FN V halves16(int16_t x) { return (V)(V16{x, x, x, x, x, x, x, x}); }
FN V pick(V mask, V a, V b) { return (a & mask) | (b & ~mask); }
FN V dot8(V sum, V unsigned8, V signed8) {
  V32 added = (V32)sum;
  for (int i = 0; i < 4; i++)
    for (int j = 0; j < 4; j++) added[i] += (int)unsigned8[4 * i + j] * (int8_t)signed8[4 * i + j];
  return (V)added;
}
FN V dot16(V sum, V a, V b) {
  V32 added = (V32)sum;
  V16 x = (V16)a, y = (V16)b;
  for (int i = 0; i < 4; i++) added[i] += x[2 * i] * y[2 * i] + x[2 * i + 1] * y[2 * i + 1];
  return (V)added;
}
FN V scale16(V a, V b) {
  V16 x = (V16)a, y = (V16)b, scaled;
  for (int i = 0; i < 8; i++) scaled[i] = (int16_t)((x[i] * y[i] + 0x4000) >> 15);
  return (V)scaled;
}
FN V pack16(V a, V b) {  // the sums packed here never leave 16 bits
  V32 x = (V32)a, y = (V32)b;
  V16 packed;
  for (int i = 0; i < 4; i++) packed[i] = (int16_t)x[i], packed[4 + i] = (int16_t)y[i];
  return (V)packed;
}
template <int BYTES, int FROM> FN V interleave(V a, V b) {
  V mixed;
  for (int i = 0; i < W / 2; i += BYTES)
    for (int j = 0; j < BYTES; j++) mixed[2 * i + j] = a[FROM + i + j], mixed[2 * i + BYTES + j] = b[FROM + i + j];
  return mixed;
}
FN V low8(V a, V b) { return interleave<1, 0>(a, b); }
FN V high8(V a, V b) { return interleave<1, 8>(a, b); }
FN V low16(V a, V b) { return interleave<2, 0>(a, b); }
FN V high16(V a, V b) { return interleave<2, 8>(a, b); }
template <int K> FN V spread(V x) { return words(((V32)x)[K]); }
typedef float F4 __attribute__((vector_size(16)));
FN F4 from_half(const uint16_t* at) {
  F4 x;
  for (int i = 0; i < 4; i++) {  // shift the exponent into place; a multiplication mends its bias, subnormals too
    uint32_t bits = (uint32_t)(at[i] & 0x7fff) << 13 | (uint32_t)(at[i] & 0x8000) << 16;
    float shifted;
    memcpy(&shifted, &bits, 4);
    x[i] = shifted * 0x1p112f;
  }
  return x;
}
