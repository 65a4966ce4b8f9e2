// Encoding, as `codec.py` does it: the same operations on the same floats in the same order, so to the same bytes
// (which is why the build forbids contracted multiplications). Sixteen tokens go together, a token in each lane.

#define STEP TARGET static inline

constexpr int TOKENS = BATCH;
constexpr int CELLS = 256;       // of the pair codebooks' grid on either side of zero
constexpr float CELL_STEPS = 64;  // cells per unit length
constexpr float HALF_MAX = 65504;

STEP void load_signed(const EncodeCall& call, const float* x, Together* y) {
  for (int c = 0; c < call.size; c++)
    for (int l = 0; l < TOKENS; l++) y[c][l] = x[l * call.size + c] * call.rotation.signs[c];
}

// Sums over `size` numbers by halving; what is left of an odd size in order. Overwrites them.
STEP void row_sum(Together* x, int size, float* total) {
  for (; size % 2 == 0; size /= 2)
    for (int c = 0; c < size / 2; c++)
      for (int l = 0; l < TOKENS; l++) x[c][l] += x[c + size / 2][l];
  memcpy(total, x[0], sizeof(Together));
  for (int c = 1; c < size; c++)
    for (int l = 0; l < TOKENS; l++) total[l] += x[c][l];
}

// Codes of a segment's units, at codes[unit][token], and its levels.
STEP void quantise(const Segment& segment, const Together* y, const float* factor, uint8_t* codes, int tokens, Together* levels) {
  for (int u = 0; u < segment.units; u++) {
    int32_t code[TOKENS] = {};
    if (segment.dims == 1) {
      float v[TOKENS];
      for (int l = 0; l < TOKENS; l++) v[l] = y[u][l] * factor[l];
      for (int k = 0; k < (1 << segment.bits) - 1; k++)
        for (int l = 0; l < TOKENS; l++) code[l] += v[l] > segment.midpoints[k];
      for (int l = 0; l < TOKENS; l++) levels[u][l] = segment.levels[code[l]];
    } else {
      for (int e = 0; e < 2; e++)
        for (int l = 0; l < TOKENS; l++) {
          float cell = floorf(y[2 * u + e][l] * factor[l] * CELL_STEPS);
          cell = !(cell > -CELLS) ? -CELLS : cell > CELLS - 1 ? CELLS - 1 : cell;  // NaN counts as low
          code[l] = code[l] * 2 * CELLS + (int32_t)cell + CELLS;
        }
      for (int l = 0; l < TOKENS; l++) code[l] = segment.table[code[l]];
      for (int l = 0; l < TOKENS; l++)
        levels[2 * u][l] = segment.levels[2 * code[l]], levels[2 * u + 1][l] = segment.levels[2 * code[l] + 1];
    }
    for (int l = 0; l < TOKENS; l++) codes[u * tokens + l] = (uint8_t)code[l];
  }
}

// Rounded to the nearest, ties to even, as IEEE has it.
STEP uint16_t to_half(float x) {
  uint32_t bits;
  memcpy(&bits, &x, 4);
  uint32_t sign = bits >> 16 & 0x8000, rest = bits & 0x7fffffff;
  if (rest < 0x38800000) {  // a subnormal: an addition shifts and rounds
    float shifted;
    memcpy(&shifted, &rest, 4);
    shifted += 0.5f;
    memcpy(&rest, &shifted, 4);
    return (uint16_t)(sign | (rest - 0x3f000000));
  }
  return (uint16_t)(sign | ((rest - 0x38000000 + 0xfff + (rest >> 13 & 1)) >> 13));
}

// One codevec of a bundle: 64 codes in the order of `layout.py`.
STEP void codevec(const EncodeCall& call, const uint8_t* codes, int units, int index, uint8_t* to) {
  if (call.value_order) {
    int u = index / (call.tokens / 4) * 16, t = index % (call.tokens / 4) * 4;
    for (int i = 0; i < 16; i++) memcpy(to + 4 * i, codes + (u + i) * call.tokens + t, 4);
  } else {
    int block = index / (units / 2), u = index % (units / 2) / 2 * 4;
    const uint8_t* from = codes + u * call.tokens + block * BLOCK + index % 2 * 16;
    for (int i = 0; i < 16; i++)
      for (int j = 0; j < 4; j++) to[4 * i + j] = from[j * call.tokens + i];
  }
}

// Rows of a bundle.
template <int BITS> STEP void pack(const uint8_t (*c)[ROW], uint8_t* rows) {
  constexpr int LOW = BITS == 3 ? 2 : BITS, TOGETHER = 8 / LOW;  // codes side by side in a row
  for (int i = 0; i < BITS; i++)
    for (int k = 0; k < ROW; k++) {
      int row = 0;
      if (i < LOW && 8 % LOW == 0)
        for (int n = 0; n < TOGETHER; n++) row |= (c[i * TOGETHER + n][k] & ((1 << LOW) - 1)) << LOW * n;
      else if (BITS == 3)
        for (int n = 0; n < 8; n++) row |= (c[n][k] >> 2) << n;
      else {
        row = c[i][k];
        for (int n = BITS; n < 8; n++) row |= (c[n][k] >> i & 1) << n;
      }
      rows[i * ROW + k] = (uint8_t)row;
    }
}

template <int BITS> STEP uint8_t* pack_segment(const EncodeCall& call, int units, const uint8_t* codes, uint8_t* out) {
  uint8_t bundle[8][ROW];
  for (int index = 0; index < units * call.tokens / ROW; index += 8, out += BITS * ROW) {
    for (int n = 0; n < 8; n++) codevec(call, codes, units, index + n, bundle[n]);
    pack<BITS>(bundle, out);
  }
  return out;
}

STEP uint8_t* pack_any(const EncodeCall& call, const Segment& segment, const uint8_t* codes, uint8_t* out) {
  switch (segment.bits) {
    case 1: return pack_segment<1>(call, segment.units, codes, out);
    case 2: return pack_segment<2>(call, segment.units, codes, out);
    case 3: return pack_segment<3>(call, segment.units, codes, out);
    case 4: return pack_segment<4>(call, segment.units, codes, out);
    case 5: return pack_segment<5>(call, segment.units, codes, out);
    case 6: return pack_segment<6>(call, segment.units, codes, out);
    default: return pack_segment<7>(call, segment.units, codes, out);
  }
}

TARGET static void encode(const EncodeCall& call, const float* x, uint8_t* out) {
  auto* memory = (Together*)malloc(sizeof(Together) * 2 * call.size + (size_t)call.size * call.tokens + 2 * call.tokens);
  Together *y = memory, *z = y + call.size;
  auto* codes = (uint8_t*)(z + call.size);
  auto* scales = codes + (size_t)call.size * call.tokens;
  for (int t = 0; t < call.tokens; t += TOKENS) {
    Together power, factor, sum;
    load_signed(call, x + (size_t)t * call.size, y);
    hadamard(y, call.size, call.rotation.paley, false);
    for (int c = 0; c < call.size; c++)
      for (int l = 0; l < TOKENS; l++) y[c][l] *= call.rotation.norm, z[c][l] = y[c][l] * y[c][l];
    row_sum(z, call.size, power);
    for (int l = 0; l < TOKENS; l++) factor[l] = power[l] > 0 ? sqrtf(1 / power[l] * (float)call.size) : 0;
    int at = 0;
    for (int s = 0; s < call.segments; s++) {
      const Segment& segment = call.segment[s];
      quantise(segment, y + at, factor, codes + (size_t)at * call.tokens + t, call.tokens, z + at);
      at += segment.units * segment.dims;
    }
    for (int c = 0; c < call.size; c++)
      for (int l = 0; l < TOKENS; l++) z[c][l] *= call.unbiased ? y[c][l] : z[c][l];
    row_sum(z, call.size, sum);
    for (int l = 0; l < TOKENS; l++) {
      float scale = call.unbiased ? power[l] / sum[l] : sqrtf(power[l] / sum[l]);
      scale = power[l] > 0 ? scale > HALF_MAX ? HALF_MAX : scale : 0;
      uint16_t half = to_half(scale);
      memcpy(scales + 2 * (t + l), &half, 2);
    }
  }
  for (int s = 0, at = 0; s < call.segments; s++) {
    out = pack_any(call, call.segment[s], codes + (size_t)at * call.tokens, out);
    at += call.segment[s].units * call.segment[s].dims;
  }
  memcpy(out, scales, 2 * call.tokens);
  free(memory);
}

#undef STEP
