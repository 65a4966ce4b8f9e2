// Vectors of 64 bytes: AVX-512 with byte permutes and int8 dot products (Ice Lake, Zen 4 and later).
#define TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,fma,f16c")))
#define FN TARGET __attribute__((always_inline)) static inline

using V = __m512i;
constexpr int W = 64;              // bytes of a vector
template <int H> constexpr int TOGETHER = 2;  // token halves of a block that share a pass over the queries
constexpr int QUERY_PAIR = 254;    // sum of two neighbouring bytes of a query at most: any
constexpr int WEIGHT_PAIR = 510;   // likewise of weights
constexpr bool DIFFERENCES = false;  // tables hold their entries

struct Table { V low, high; };

template <int BITS> FN Table table(const uint8_t* bytes) {
  return {_mm512_loadu_si512(bytes), BITS == 7 ? _mm512_loadu_si512(bytes + 64) : _mm512_setzero_si512()};
}
template <int BITS> FN V lookup(const Table& table, V codes) {  // ignores all but the low bits of a code
  if constexpr (BITS == 7) return _mm512_permutex2var_epi8(table.low, codes, table.high);
  return _mm512_permutexvar_epi8(codes, table.low);
}

FN V load(const void* at) { return _mm512_loadu_si512(at); }
FN void store(void* at, V x) { _mm512_storeu_si512(at, x); }
FN V words(int32_t x) { return _mm512_set1_epi32(x); }
FN V pick(V mask, V a, V b) { return _mm512_ternarylogic_epi32(mask, a, b, 0xca); }  // a where mask is set
FN V dot8(V sum, V unsigned8, V signed8) {
  sum = _mm512_dpbusd_epi32(sum, unsigned8, signed8);
  asm("" : "+v"(sum));  // or the compiler copies sums around and has no register left for some
  return sum;
}
FN V dot16(V sum, V a, V b) { return _mm512_dpwssd_epi32(sum, a, b); }
FN V scale16(V a, V b) { return _mm512_mulhrs_epi16(a, b); }  // a · b / 2^15, rounded
FN V pack16(V a, V b) { return _mm512_packs_epi32(a, b); }
FN __m512 fused(__m512 a, __m512 b, __m512 c) { return _mm512_fmadd_ps(a, b, c); }
FN __m512 larger(__m512 a, __m512 b) { return _mm512_max_ps(a, b); }
FN __m512 swap_lanes(__m512 x) { return _mm512_permute_ps(x, 0xb1); }  // neighbours
FN __m512 swap_pairs(__m512 x) { return _mm512_permute_ps(x, 0x4e); }
FN float largest(__m512 x) { return _mm512_reduce_max_ps(x); }
FN float total(__m512 x) { return _mm512_reduce_add_ps(x); }
// The low byte of each lane.
FN void store_bytes(void* at, V x) { _mm_storeu_si128((__m128i*)at, _mm512_cvtepi32_epi8(x)); }
FN V low8(V a, V b) { return _mm512_unpacklo_epi8(a, b); }
FN V high8(V a, V b) { return _mm512_unpackhi_epi8(a, b); }
FN V low16(V a, V b) { return _mm512_unpacklo_epi16(a, b); }
FN V high16(V a, V b) { return _mm512_unpackhi_epi16(a, b); }
template <int K> FN V spread(V x) { return _mm512_shuffle_epi32(x, (_MM_PERM_ENUM)(K * 0x55)); }
FN __m512 from_half(const uint16_t* at) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)at)); }
FN __m128i fold(V x) {  // the sum of the four quarters
  __m256i half = _mm256_add_epi32(_mm512_castsi512_si256(x), _mm512_extracti64x4_epi64(x, 1));
  return _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
}
