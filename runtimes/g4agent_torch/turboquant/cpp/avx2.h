// Vectors of 32 bytes: AVX2. Its dot product of bytes sums two products in 16 bits, so what levels are multiplied with
// is kept small enough, two bytes at a time.
#define TARGET __attribute__((target("avx2,fma,f16c")))
#define FN TARGET __attribute__((always_inline)) static inline

using V = __m256i;
constexpr int W = 32;
template <int H> constexpr int TOGETHER = H <= 4 ? 2 : 1;  // token halves that share a pass: as registers allow
constexpr int QUERY_PAIR = 126;   // both may be rounded up, 128 · 255 < 2^15; of 127, equal ones would all be, to 64
constexpr int WEIGHT_PAIR = 256;  // both may be rounded up by less than one, 257 · 127 < 2^15
constexpr bool DIFFERENCES = true;  // tables hold what each sixteen entries differ by (xor) from those before

struct Table { const uint8_t* bytes; };

template <int BITS> FN Table table(const uint8_t* bytes) { return {bytes}; }
template <int BITS> FN V lookup(const Table& table, V codes) {
  if constexpr (BITS <= 4) {
    V entries = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i*)table.bytes));
    return _mm256_shuffle_epi8(entries, _mm256_and_si256(codes, _mm256_set1_epi8(15)));
  } else {  // sixteen entries at a time; a shuffle gives zero where bit 7 of the index is set
    codes = _mm256_and_si256(codes, _mm256_set1_epi8((1 << BITS) - 1));
    V found = _mm256_setzero_si256();
#pragma GCC unroll 8
    for (int part = 0; part < 1 << (BITS - 4); part++) {
      V entries = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i*)(table.bytes + 16 * part)));
      found = _mm256_xor_si256(found, _mm256_shuffle_epi8(entries, codes));
      codes = _mm256_sub_epi8(codes, _mm256_set1_epi8(16));
    }
    return found;
  }
}

FN V load(const void* at) { return _mm256_loadu_si256((const __m256i*)at); }
FN void store(void* at, V x) { _mm256_storeu_si256((__m256i*)at, x); }
FN V words(int32_t x) { return _mm256_set1_epi32(x); }
FN V pick(V mask, V a, V b) { return _mm256_or_si256(_mm256_and_si256(mask, a), _mm256_andnot_si256(mask, b)); }
FN V dot8(V sum, V unsigned8, V signed8) {
  V pairs = _mm256_maddubs_epi16(unsigned8, signed8);
  sum = _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
  asm("" : "+x"(sum));  // or the compiler adds all products of a code first, which takes more registers than there are
  return sum;
}
FN V dot16(V sum, V a, V b) { return _mm256_add_epi32(sum, _mm256_madd_epi16(a, b)); }
FN V scale16(V a, V b) { return _mm256_mulhrs_epi16(a, b); }
FN V pack16(V a, V b) { return _mm256_packs_epi32(a, b); }
FN __m256 fused(__m256 a, __m256 b, __m256 c) { return _mm256_fmadd_ps(a, b, c); }
FN __m256 larger(__m256 a, __m256 b) { return _mm256_max_ps(a, b); }
FN __m256 swap_lanes(__m256 x) { return _mm256_permute_ps(x, 0xb1); }
FN __m256 swap_pairs(__m256 x) { return _mm256_permute_ps(x, 0x4e); }
FN float largest(__m256 x) {
  __m128 most = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  most = _mm_max_ps(most, _mm_movehl_ps(most, most));
  return _mm_cvtss_f32(_mm_max_ss(most, _mm_movehdup_ps(most)));
}
FN float total(__m256 x) {
  __m128 sum = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
  return _mm_cvtss_f32(_mm_add_ss(sum, _mm_movehdup_ps(sum)));
}
FN void store_bytes(void* at, V x) {
  __m128i pairs = _mm_packs_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
  _mm_storel_epi64((__m128i*)at, _mm_packus_epi16(pairs, pairs));
}
FN V low8(V a, V b) { return _mm256_unpacklo_epi8(a, b); }
FN V high8(V a, V b) { return _mm256_unpackhi_epi8(a, b); }
FN V low16(V a, V b) { return _mm256_unpacklo_epi16(a, b); }
FN V high16(V a, V b) { return _mm256_unpackhi_epi16(a, b); }
template <int K> FN V spread(V x) { return _mm256_shuffle_epi32(x, K * 0x55); }
FN __m256 from_half(const uint16_t* at) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)at)); }
FN __m128i fold(V x) { return _mm_add_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1)); }
