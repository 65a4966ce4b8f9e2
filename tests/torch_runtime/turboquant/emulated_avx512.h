// `cpp/avx512.h` for any x86 processor, slowly: each instruction as what its manual says, a lane at a time.
#define TARGET __attribute__((target("avx2,fma,f16c")))
#define FN TARGET __attribute__((always_inline)) static inline
#define SLOW TARGET __attribute__((noinline, unused)) static  // a call each, or it compiles for minutes

template <class T> using Lanes [[gnu::vector_size(64)]] = T;
using V = Lanes<int64_t>;
using Floats = Lanes<float>;
using Quarter = int32_t __attribute__((vector_size(16)));
constexpr int W = 64;
template <int H> constexpr int TOGETHER = 2;
constexpr int QUERY_PAIR = 254;
constexpr int WEIGHT_PAIR = 510;
constexpr bool DIFFERENCES = false;

struct Table { const uint8_t* bytes; };

template <int BITS> FN Table table(const uint8_t* bytes) { return {bytes}; }
template <int BITS> SLOW V lookup(const Table& table, V codes) {
  auto from = (Lanes<uint8_t>)codes;
  Lanes<uint8_t> to;
  for (int i = 0; i < 64; i++) to[i] = table.bytes[from[i] & (BITS == 7 ? 127 : 63)];
  return (V)to;
}

SLOW V load(const void* at) {
  V x;
  memcpy(&x, at, W);
  return x;
}
SLOW void store(void* at, V x) { memcpy(at, &x, W); }
SLOW V words(int32_t x) { return (V)(Lanes<int32_t>{} + x); }
SLOW V pick(V mask, V a, V b) { return (mask & a) | (~mask & b); }
SLOW V dot8(V sum, V unsigned8, V signed8) {
  auto to = (Lanes<int32_t>)sum;
  for (int i = 0; i < 64; i++) to[i / 4] += ((Lanes<uint8_t>)unsigned8)[i] * ((Lanes<int8_t>)signed8)[i];
  return (V)to;
}
SLOW V dot16(V sum, V a, V b) {
  auto to = (Lanes<int32_t>)sum;
  for (int i = 0; i < 32; i++) to[i / 2] += ((Lanes<int16_t>)a)[i] * ((Lanes<int16_t>)b)[i];
  return (V)to;
}
SLOW V scale16(V a, V b) {
  Lanes<int16_t> to;
  for (int i = 0; i < 32; i++) to[i] = (int16_t)((((Lanes<int16_t>)a)[i] * ((Lanes<int16_t>)b)[i] + 0x4000) >> 15);
  return (V)to;
}
SLOW int16_t saturated(int32_t x) { return (int16_t)(x > 32767 ? 32767 : x < -32768 ? -32768 : x); }
SLOW V pack16(V a, V b) {  // within quarters
  Lanes<int16_t> to;
  for (int i = 0; i < 32; i++) to[i] = saturated(((Lanes<int32_t>)(i % 8 < 4 ? a : b))[i / 8 * 4 + i % 4]);
  return (V)to;
}
SLOW Floats fused(Floats a, Floats b, Floats c) {
  for (int i = 0; i < 16; i++) c[i] = __builtin_fmaf(a[i], b[i], c[i]);
  return c;
}
SLOW Floats larger(Floats a, Floats b) {
  for (int i = 0; i < 16; i++) a[i] = a[i] > b[i] ? a[i] : b[i];
  return a;
}
SLOW Floats swap_lanes(Floats x) {
  for (int i = 0; i < 16; i += 2) {
    float first = x[i];
    x[i] = x[i + 1], x[i + 1] = first;
  }
  return x;
}
// Numbers of both vectors by turns, of the lower or upper half of each quarter.
template <class T> SLOW V by_turns(V a, V b, bool upper) {
  constexpr int COUNT = 16 / sizeof(T);
  Lanes<T> to;
  for (int i = 0; i < (int)(64 / sizeof(T)); i++)
    to[i] = ((Lanes<T>)(i % 2 ? b : a))[i / COUNT * COUNT + i % COUNT / 2 + (upper ? COUNT / 2 : 0)];
  return (V)to;
}
SLOW V low8(V a, V b) { return by_turns<uint8_t>(a, b, false); }
SLOW V high8(V a, V b) { return by_turns<uint8_t>(a, b, true); }
SLOW V low16(V a, V b) { return by_turns<uint16_t>(a, b, false); }
SLOW V high16(V a, V b) { return by_turns<uint16_t>(a, b, true); }
template <int K> SLOW V spread(V x) {
  auto to = (Lanes<int32_t>)x;
  for (int i = 0; i < 16; i++) to[i] = ((Lanes<int32_t>)x)[i / 4 * 4 + K];
  return (V)to;
}
SLOW Floats from_half(const uint16_t* at) {
  Floats to;
  for (int i = 0; i < 16; i++) to[i] = _cvtsh_ss(at[i]);
  return to;
}
SLOW Quarter fold(V x) {
  Quarter sum = {};
  for (int i = 0; i < 16; i++) sum[i % 4] += ((Lanes<int32_t>)x)[i];
  return sum;
}
#undef SLOW
