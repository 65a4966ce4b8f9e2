// The same attention in float32 and plain loops, for any processor: a page is decoded once for all queries of a task.

constexpr int UNITS = 16;  // of a group

// Codevecs of a bundle, one code per byte.
static void unpack(const uint8_t* rows, int bits, uint8_t (*codes)[ROW]) {
  for (int n = 0; n < 8; n++)
    for (int i = 0; i < ROW; i++) {
      const uint8_t* r = rows + i;
      int code = 0;
      if (bits == 4) code = r[ROW * (n / 2)] >> n % 2 * 4 & 15;
      else if (bits == 3) code = (r[ROW * (n / 4)] >> n % 4 * 2 & 3) | (r[2 * ROW] >> n & 1) << 2;
      else if (n < bits) code = r[ROW * n] & ((1 << bits) - 1);
      else
        for (int k = 0; k < bits; k++) code |= (r[ROW * k] >> n & 1) << k;
      codes[n][i] = (uint8_t)code;
    }
}

// A segment's levels, x[coordinate][token].
static void decode_segment(const uint8_t* rows, int groups, int bits, int dims, bool key, const float* levels,
                           float (*x)[PAGE]) {
  uint8_t codes[8][ROW];
  for (int bundle = 0; bundle < 4 * groups; bundle++) {
    unpack(rows + bundle * bits * ROW, bits, codes);
    for (int n = 0; n < 8; n++)
      for (int i = 0; i < 16; i++)
        for (int j = 0; j < 4; j++) {
          int u = key ? bundle % groups * UNITS + n / 2 * 4 + j : bundle / 4 * UNITS + i;
          int token = key ? bundle / groups * BLOCK + n % 2 * 16 + i : bundle % 4 * BLOCK + n * 4 + j;
          for (int e = 0; e < dims; e++) x[u * dims + e][token] = levels[(e << bits) + codes[n][4 * i + j]];
        }
  }
}

// A stream's vectors without their scales, x[coordinate][token], and the scales.
template <class R>
static void decode(const StreamLevels& levels, const uint8_t* stream, const Stream<R>& at, bool key, float (*x)[PAGE],
                   float* scales) {
  decode_segment(stream, at.groups, R::MAIN, R::DIMS, key, levels.exact[0], x);
  decode_segment(stream + at.tail, 1, R::TAIL, R::DIMS, key, levels.exact[1], x + at.groups * UNITS * R::DIMS);
  for (int i = 0; i < PAGE; i++) {  // halves: a multiplication mends the exponent's bias, of subnormals too
    uint16_t half;
    memcpy(&half, stream + at.scales + 2 * i, 2);
    uint32_t bits = (uint32_t)(half & 0x7fff) << 13 | (uint32_t)(half & 0x8000) << 16;
    float shifted;
    memcpy(&shifted, &bits, 4);
    scales[i] = shifted * 0x1p112f;
  }
}

// From rotary values to keys turned within the page; see `native_attention.py` for the table.
static void turn_keys(const Call& call, int size, const float (*values)[PAGE], float (*keys)[PAGE]) {
  memcpy(keys, values, sizeof(float) * size * PAGE);
  for (int distance = 1; distance < size / 2; distance *= 2)
    for (int i = 0; i < size; i++)
      if (!(i & distance))
        for (int t = 0; t < PAGE; t++) {
          float a = keys[i][t], b = keys[i + distance][t];
          keys[i][t] = a + b, keys[i + distance][t] = a - b;
        }
  for (int i = 0; i < size / 2; i++)
    for (int t = 0; t < PAGE; t++) {
      int lane = t % 16 / 4 * 8 + t / 16 % 2 * 4 + t % 4;
      const int16_t* m = call.rope + (t / BLOCK * (size / 2) + i) * 4 * BLOCK + lane;
      float a = keys[i][t] * call.rope_unit / 32768, b = keys[i + size / 2][t] * call.rope_unit / 32768;
      keys[i][t] = a * m[0] + b * m[BLOCK];
      keys[i + size / 2][t] = a * m[2 * BLOCK] + b * m[3 * BLOCK];
    }
}

static void add_scores(const float* query, int size, const float (*x)[PAGE], const float* scales, float* scores) {
  float sums[PAGE] = {};
  for (int c = 0; c < size; c++)
    for (int t = 0; t < PAGE; t++) sums[t] += query[c] * x[c][t];
  for (int t = 0; t < PAGE; t++) scores[t] += sums[t] * scales[t];
}

static void add_values(const float* weights, int size, const float (*x)[PAGE], const float* scales, float* out) {
  float scaled[PAGE];
  for (int t = 0; t < PAGE; t++) scaled[t] = weights[t] * scales[t];
  for (int c = 0; c < size; c++) {
    float sums[16] = {};
    for (int t = 0; t < PAGE; t += 16)
      for (int i = 0; i < 16; i++) sums[i] += scaled[t + i] * x[c][t + i];
    for (int i = 0; i < 16; i++) out[c] += sums[i];
  }
}

static void turn_query(const Call& call, const float* query, int pairs, int64_t page, float* turned) {
  for (int i = 0; i < pairs; i++) {
    double angle = call.frequencies[i] * (double)(call.first_position + page * PAGE);
    float c = (float)cos(angle), s = (float)sin(angle);
    turned[i] = query[i] * c + query[pairs + i] * s, turned[pairs + i] = query[pairs + i] * c - query[i] * s;
  }
}

template <class A, class B, bool VALUE_ONLY> static void attend(const Call& call, const Task& task) {
  Stream<A> first(call.first_size);
  Stream<B> second(call.second_size);
  int size = VALUE_ONLY ? first.size + second.size : second.size;
  auto* memory = (float*)malloc(sizeof(float) * PAGE * (first.size + 2 * second.size));
  auto* x = (float(*)[PAGE])memory;
  auto* y = x + first.size;
  auto* keys = y + second.size;
  float scales[2][PAGE], scores[PAGE], turned[MAX_ROTARY];
  memset(task.out, 0, sizeof(float) * task.count * size);
  for (int h = 0; h < task.count; h++) task.maximum[h] = -INFINITY, task.sum[h] = 0;
  for (int64_t page = task.first; page < task.last; page++) {
    const uint8_t* head = call.page[page] + task.head * call.head_bytes;
    decode(call.levels[0], head, first, true, x, scales[0]);
    decode(call.levels[1], head + first.bytes, second, VALUE_ONLY, y, scales[1]);
    if (VALUE_ONLY) turn_keys(call, second.size, y, keys);
    for (int h = 0; h < task.count; h++) {
      if (task.bias) memcpy(scores, task.bias + (h * call.pages + page) * PAGE, sizeof scores);
      else memset(scores, 0, sizeof scores);
      add_scores(task.query + h * first.size, first.size, x, scales[0], scores);
      if (VALUE_ONLY) {
        turn_query(call, task.turned + h * second.size, second.size / 2, page, turned);
        add_scores(turned, second.size, keys, scales[1], scores);
      }
      float most = task.maximum[h];
      for (int t = 0; t < PAGE; t++) most = fmaxf(most, scores[t]);
      float shrunk = expf(task.maximum[h] - most), *out = task.out + h * size;
      task.maximum[h] = most, task.sum[h] *= shrunk;
      for (int t = 0; t < PAGE; t++) task.sum[h] += scores[t] = expf(scores[t] - most);
      for (int i = 0; i < size; i++) out[i] *= shrunk;
      if (VALUE_ONLY) add_values(scores, first.size, x, scales[0], out);
      add_values(scores, second.size, y, scales[1], VALUE_ONLY ? out + first.size : out);
    }
  }
  free(memory);
}

template <class A, class B, bool VALUE_ONLY> struct Attend {
  static void run(const Call& call, const Task& task) { attend<A, B, VALUE_ONLY>(call, task); }
};

static void attend_any(const Call& call, const Task& task) { dispatch<Attend>(call, task); }
