// Attention of a few queries over some pages of one KV head, in integers: levels become integers of one common unit.
// Included once for each kind of vector, which defines V, W and what can be done with it.
//
// codes.h   codes as bytes, and tables of levels    softmax.h  from scores to weights
// scores.h  queries and keys                        values.h   weights and values

#include "codes.h"
#include "scores.h"
#include "values.h"
#include "softmax.h"

template <int H> struct Workspace {
  alignas(64) int32_t sums[H][PAGE];
  alignas(64) float scores[H][CHUNK * PAGE];
  alignas(64) float scales[2][CHUNK * PAGE];
  alignas(64) uint8_t weights[2][CHUNK * 8 * H * ROW];
  QueryBytes<H> q[2];  // the first bytes, and the second
  alignas(64) int32_t q16[MAX_ROTARY / 2 * H];
  alignas(64) float out[H * MAX_SIZE];
  float cosine[MAX_ROTARY / 2], sine[MAX_ROTARY / 2], step_cosine[MAX_ROTARY / 2], step_sine[MAX_ROTARY / 2];
  float turned_step[H], maximum[H], sum[H];
  Levels levels[2];  // of both streams
};

// From planes to coordinates, see `add_values`.
template <class R> static void unfold(const float* from, const Stream<R>& at, float* to) {
  constexpr int D = R::DIMS;
  int main = at.groups * 16;
  for (int i = 0; i < at.size; i++) {
    bool tail = i >= main * D;
    int start = tail ? main * D : 0, units = tail ? 16 : main, unit = (i - start) / D;
    to[i] = from[start + i % D * units + unit];
  }
}

// Cosines and sines of a page's first position, and of a page's length.
template <int H> static void set_angles(const Call& call, int64_t page, Workspace<H>& work) {
  for (int i = 0; i < call.second_size / 2; i++) {
    double start = call.frequencies[i] * (double)(call.first_position + page * PAGE), step = call.frequencies[i] * PAGE;
    work.cosine[i] = (float)cos(start), work.sine[i] = (float)sin(start);
    work.step_cosine[i] = (float)cos(step), work.step_sine[i] = (float)sin(step);
  }
}

template <int H> TARGET static void next_angles(int pairs, Workspace<H>& work) {
  for (int i = 0; i < pairs; i++) {
    float c = work.cosine[i], s = work.sine[i];
    work.cosine[i] = c * work.step_cosine[i] - s * work.step_sine[i];
    work.sine[i] = s * work.step_cosine[i] + c * work.step_sine[i];
  }
}

// Rates A and B of the head's streams: of keys and values, or where only values are kept of their dimensions without
// and with positions.
template <class A, class B, bool VALUE_ONLY, int H>
TARGET static void score_page(const Call& call, const Task& task, const uint8_t* head, const uint8_t* next,
                              Workspace<H>& work, int page) {
  Stream<A> first(call.first_size);
  float factor[H];
  for (int h = 0; h < H; h++) factor[h] = work.q[0].step[h] * call.levels[0].unit;
  score_keys<A, H>(head, first, work.q[0].words, work.levels[0], work.sums, next);
  put_scores<H, false>(work.sums, head + first.scales, factor, work.q[0].offset, page, work.scores);
  if constexpr (VALUE_ONLY) {
    Stream<B> second(call.second_size);
    float none[H] = {};
    int pairs = call.second_size / 2;
    turn_queries<H>(task, work.turned_step, pairs, work.cosine, work.sine, work.q16);
    next_angles(pairs, work);
    score_rotary<B, H>(head + first.bytes, second, call.rope, work.q16, work.levels[1], work.sums);
    for (int h = 0; h < H; h++) factor[h] = work.turned_step[h] * call.levels[1].unit * call.rope_unit;
    put_scores<H, true>(work.sums, head + first.bytes + second.scales, factor, none, page, work.scores);
  }
}

// Adds what else belongs to the scores of a chunk.
template <int H>
TARGET static void add_bias(const Call& call, const Task& task, int64_t page, int tokens, Workspace<H>& work) {
  for (int h = 0; h < H; h++) {
    const float* bias = task.bias + query_of(task, h) * call.pages * PAGE + page * PAGE;
    for (int i = 0; i < tokens; i += LANES) storef(work.scores[h] + i, loadf(work.scores[h] + i) + loadf(bias + i));
  }
}

// Adds the second bytes of queries to scores that are too coarse without, of pages that can matter as far as this task
// has read. Each query decides for itself, whatever the others of its task need.
template <class A, int H> TARGET static void refine(const Call& call, const Chunk& chunk, Workspace<H>& work) {
  Stream<A> first(call.first_size);
  float length[CHUNK], longest = 0;  // of a page's keys
  for (int page = 0; page < chunk.pages; page++) {
    length[page] = largest_scale(chunk.page[page] + first.scales) * sqrtf((float)first.size);
    longest = fmaxf(longest, length[page]);
  }
  float factor[CHUNK][H] = {};
  bool wanted[CHUNK] = {};
  for (int h = 0; h < H; h++) {
    float off = work.q[0].step[h] * sqrtf(1 / 12.0f);  // a coordinate of the query, as rounding has it
    if (off * longest <= COARSE_SCORE) continue;
    float most = fmaxf(work.maximum[h], largest_of(work.scores[h], chunk.pages * PAGE));
    for (int page = 0; page < chunk.pages; page++)
      if (off * length[page] > COARSE_SCORE && weight_of(work.scores[h] + page * PAGE, most) > MATTERS)
        factor[page][h] = work.q[1].step[h] * call.levels[0].unit, wanted[page] = true;
  }
  for (int page = 0; page < chunk.pages; page++)
    if (wanted[page]) {
      score_keys<A, H>(chunk.page[page], first, work.q[1].words, work.levels[0], work.sums, nullptr);
      const uint8_t* scales = chunk.page[page] + first.scales;
      put_scores<H, true>(work.sums, scales, factor[page], work.q[1].offset, page, work.scores);
    }
}

// Asks for tails and scales of a page, which nothing before them asks for.
template <class A, class B> FN void fetch_tails(const Call& call, const uint8_t* head) {
  Stream<A> first(call.first_size);
  Stream<B> second(call.second_size);
  for (int64_t i = first.tail; i < first.bytes; i += ROW) fetch(head + i);
  for (int64_t i = second.tail; i < second.bytes; i += ROW) fetch(head + first.bytes + i);
}

// Adds a chunk's values, whose scores are in place.
template <class A, class B, bool VALUE_ONLY, int H>
TARGET static void weigh_chunk(const Call& call, const Chunk& chunk, int size, Workspace<H>& work) {
  Stream<A> first(call.first_size);
  Stream<B> second(call.second_size);
  int tokens = chunk.pages * PAGE;
  if (VALUE_ONLY) unpack_scales(chunk, first.scales, work.scales[0]);
  unpack_scales(chunk, first.bytes + second.scales, work.scales[1]);
  float chunk_factor[2][H], page_factor[CHUNK][H];
  for (int h = 0; h < H; h++) {
    float* weights = work.scores[h];
    float shrunk = soften(weights, tokens, work.maximum[h], work.sum[h]);
    if (shrunk != 1)
      for (int i = 0; i < size; i++) work.out[h * size + i] *= shrunk;
    if constexpr (VALUE_ONLY)
      for (int s = 0; s < 2; s++) {
        float step = weight_step<true>(weights, work.scales[s], tokens);
        chunk_factor[s][h] = call.levels[s].unit * step;
        spread_weights<H>(weights, work.scales[s], chunk.pages, step, h, work.weights[s]);
      }
    else
      for (int page = 0; page < chunk.pages; page++) {
        const float *some = weights + page * PAGE, *scales = work.scales[1] + page * PAGE;
        float step = weight_step<false>(some, scales, PAGE);
        page_factor[page][h] = call.levels[1].unit * step;
        pack_weights<H>(some, scales, step, h, (int32_t*)work.weights[1] + page * PAGE / 4 * H);
      }
  }
  if constexpr (VALUE_ONLY) {
    add_regrouped<A, H>(chunk, 0, first, work.weights[0], work.levels[0], chunk_factor[0], size, work.out);
    add_regrouped<B, H>(chunk, first.bytes, second, work.weights[1], work.levels[1], chunk_factor[1], size,
                        work.out + first.size);
  } else {
    add_values<B, H>(chunk, first.bytes, second, (const int32_t*)work.weights[1], work.levels[1], page_factor, work.out);
  }
}

// The queries of a task, H at most, over its pages: maximum, sum and unnormalised output of each.
template <class A, class B, bool VALUE_ONLY, int H> TARGET static void attend(const Call& call, const Task& task) {
  Stream<A> first(call.first_size);
  Stream<B> second(call.second_size);
  int size = VALUE_ONLY ? first.size + second.size : second.size;
  auto* memory = aligned_alloc(64, (sizeof(Workspace<H>) + 63) / 64 * 64);
  auto& work = *(Workspace<H>*)memory;
  fill_levels<A>(call.levels[0], work.levels[0]);
  fill_levels<B>(call.levels[1], work.levels[1]);
  for (int h = 0; h < H; h++) {
    quantise_query<A, H>(task.query + query_of(task, h) * first.size, h, first, work.q);
    work.maximum[h] = -INFINITY, work.sum[h] = 0, work.turned_step[h] = 0;
    if (VALUE_ONLY) {
      const float* turned = task.turned + query_of(task, h) * second.size;
      float most = 1e-30f, lost = 0;
      for (int i = 0; i < second.size / 2; i++) {
        float pair = hypotf(turned[i], turned[second.size / 2 + i]);
        most = fmaxf(most, pair), lost += pair - pair;  // NaN as in `quantise_query`
      }
      work.turned_step[h] = (most + lost) / TURNED_MAX;
    }
  }
  memset(work.out, 0, sizeof(float) * H * size);
  if (VALUE_ONLY) set_angles(call, task.first, work);
  for (int64_t start = task.first; start < task.last; start += CHUNK) {
    Chunk chunk{(int)(task.last - start < CHUNK ? task.last - start : CHUNK), {}};
    for (int page = 0; page < chunk.pages; page++) {
      chunk.page[page] = call.page[start + page] + task.head * call.head_bytes;
      bool more = start + page + 1 < task.last;
      const uint8_t* next = more ? call.page[start + page + 1] + task.head * call.head_bytes : nullptr;
      if (more) fetch_tails<A, B>(call, next);
      score_page<A, B, VALUE_ONLY>(call, task, chunk.page[page], next, work, page);
    }
    if (task.bias) add_bias(call, task, start, chunk.pages * PAGE, work);
    refine<A>(call, chunk, work);
    weigh_chunk<A, B, VALUE_ONLY>(call, chunk, size, work);
  }
  for (int h = 0; h < task.count; h++) {
    float *from = work.out + h * size, *to = task.out + h * size;
    float step = work.q[0].step[h] + work.turned_step[h];
    task.maximum[h] = work.maximum[h], task.sum[h] = work.sum[h] + (step - step);  // NaN if the query was
    if (VALUE_ONLY) unfold(from, first, to);
    unfold(VALUE_ONLY ? from + first.size : from, second, VALUE_ONLY ? to + first.size : to);
  }
  free(memory);
}

template <class A, class B, bool VALUE_ONLY> struct Attend {
  static void run(const Call& call, const Task& task) {
    if (task.count > 4) attend<A, B, VALUE_ONLY, 8>(call, task);
    else if (task.count > 1) attend<A, B, VALUE_ONLY, 4>(call, task);
    else attend<A, B, VALUE_ONLY, 1>(call, task);
  }
};

static void attend_any(const Call& call, const Task& task) { dispatch<Attend>(call, task); }

#undef TARGET
#undef FN
