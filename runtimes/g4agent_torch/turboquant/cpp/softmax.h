// Softmax in float32, streaming over chunks of pages; and queries and weights as the bytes that scores and values take.

TARGET static float largest_scale(const uint8_t* scales) {  // of a page
  F most = floats(0);
  for (int i = 0; i < PAGE; i += LANES) most = larger(most, (F)from_half((const uint16_t*)scales + i));
  return largest(most);
}

// Scales of a stream of the chunk, [page][token].
TARGET static void unpack_scales(const Chunk& chunk, int64_t offset, float* scales) {
  for (int i = 0; i < chunk.pages * PAGE; i += LANES)
    storef(scales + i, (F)from_half((const uint16_t*)(chunk.page[i / PAGE] + offset) + i % PAGE));
}

// What one step of weights times scales in bytes is worth. Neighbours in a word are tokens that follow each other, or of
// KEY order the same tokens of two blocks.
template <bool KEY> TARGET static float weight_step(const float* weights, const float* scales, int tokens) {
  F most = floats(1e-30f), pairs = most;
  for (int i = 0; i < tokens; i += LANES) {
    F x = loadf(weights + i) * loadf(scales + i);
    most = larger(most, x);
    if constexpr (WEIGHT_PAIR < 2 * 255)
      pairs = larger(pairs, x + (KEY ? loadf(weights + (i ^ BLOCK)) * loadf(scales + (i ^ BLOCK)) : (F)swap_lanes(x)));
  }
  return fmaxf(largest(most) / 255, largest(pairs) / WEIGHT_PAIR);
}

// Weights that are small beside the largest would all be rounded to nothing, or if they are equal, the same way. So these
// are rounded up or down at a limit of their token's own, and their sums stay right.
constexpr float SMALL_WEIGHT = 8;  // steps
struct Limits {
  alignas(64) float of_token[PAGE];
  constexpr Limits() : of_token() {
    for (int i = 0; i < PAGE; i++) of_token[i] = (i * 79 % PAGE + 0.5f) / PAGE;  // neighbours lie a golden section apart
  }
};
static constexpr Limits LIMITS;

FN I weight_bytes(const float* weights, const float* scales, int token, F steps) {
  F weight = loadf(weights + token) * loadf(scales + token) * steps;
  F limits = weight < SMALL_WEIGHT ? loadf(LIMITS.of_token + token % PAGE) : floats(0.5f);
  return __builtin_convertvector(weight + limits, I);
}

// For VALUE order: four tokens' weights of a page to a word, p[word][h].
template <int H>
TARGET static void pack_weights(const float* weights, const float* scales, float step, int h, int32_t* p) {
  alignas(64) int32_t words[LANES / 4];
  for (int i = 0; i < PAGE; i += LANES) {
    store_bytes(words, (V)weight_bytes(weights, scales, i, floats(1 / step)));
    for (int j = 0; j < LANES / 4; j++) p[(i / 4 + j) * H + h] = words[j];
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
        I blocks = weight_bytes(weights, scales, at, steps);
#pragma GCC unroll 3
        for (int block = 1; block < 4; block++)
          blocks |= weight_bytes(weights, scales, at + block * BLOCK, steps) << 8 * block;
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

TARGET static float largest_of(const float* x, int count) {
  F most = loadf(x);
  for (int i = LANES; i < count; i += LANES) most = larger(most, loadf(x + i));
  return largest(most);
}

TARGET static float weight_of(const float* scores, float most) {  // of a page, in weights of the score `most`
  F sum = floats(0);
  for (int i = 0; i < PAGE; i += LANES) sum += exponential(loadf(scores + i) - most);
  return total(sum);
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

// A byte of each coordinate of H queries.
template <int H> struct QueryBytes {
  alignas(64) int32_t words[MAX_SIZE / 4 * H];
  float step[H], offset[H];
};

// Query bytes as score_keys wants them, and what they leave over, in bytes as well; of both, step is what one is worth,
// offset what the shift of the levels adds.
template <class R, int H>
TARGET static void quantise_query(const float* query, int h, const Stream<R>& at, QueryBytes<H> (&q)[2]) {
  constexpr int D = R::DIMS;
  F most = floats(1e-30f), pairs = most, lost = floats(0);
  for (int i = 0; i < at.size; i += LANES) {
    F x = loadf(query + i), size = (F)((I)x & 0x7fffffff);
    most = larger(most, size);
    if constexpr (QUERY_PAIR < 2 * 127) pairs = larger(pairs, size + (F)(D == 1 ? swap_lanes(size) : swap_pairs(size)));
    lost += x - x;  // NaN where a coordinate is not finite, which no byte can say
  }
  q[0].step[h] = fmaxf(largest(most) / 127, largest(pairs) / QUERY_PAIR) + total(lost);
  q[1].step[h] = q[0].step[h] / QUERY_STEPS;
  alignas(64) uint8_t bytes[2][MAX_SIZE];
  I sums[2] = {};
  for (int i = 0; i < at.size; i += LANES) {
    F whole = rounded(loadf(query + i) / q[1].step[h]), high = rounded(whole / QUERY_STEPS);
    I parts[2] = {__builtin_convertvector(high, I), __builtin_convertvector(whole - QUERY_STEPS * high, I)};
    for (int part = 0; part < 2; part++) {
      sums[part] += parts[part];
      store_bytes(bytes[part] + i, (V)(parts[part] & 255));
    }
  }
  for (int part = 0; part < 2; part++) {
    q[part].offset[h] = -LEVEL_OFFSET * total(to_float((V)sums[part]));
    auto* words = (uint8_t*)(q[part].words + h);
    for (int i = 0; i < at.size; i++) {
      int unit = i / D;
      words[(unit / 4 * D + i % D) * 4 * H + unit % 4] = bytes[part][i];
    }
  }
}

// Rotary queries turned back by the angle of a page's first position, q[h][pair]; a task's hold first members of pairs,
// then second.
template <int H>
TARGET static void turn_queries(const Task& task, const float* steps, int pairs, const float* cosine,
                                const float* sine, int32_t* q) {
  for (int h = 0; h < H; h++)
    for (int i = 0; i < pairs; i += LANES) {
      const float* turned = task.turned + query_of(task, h) * 2 * pairs + i;
      F first = loadf(turned) * (1 / steps[h]), c = loadf(cosine + i);
      F second = loadf(turned + pairs) * (1 / steps[h]), s = loadf(sine + i);
      I a = __builtin_convertvector(first * c + second * s, I), b = __builtin_convertvector(second * c - first * s, I);
      store(q + h * pairs + i, (V)((a & 0xffff) | b << 16));
    }
}
