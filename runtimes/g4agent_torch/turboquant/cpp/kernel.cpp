// Decode attention straight from packed codes, and their encoding. No torch in here: `native.py` compiles this file and calls it.
//
// kernel.cpp    tasks, threads, the C interface
// attention.h   the arithmetic in integers, over the vectors of avx512.h and avx2.h
// portable.h    the same in float32, for other processors
// hadamard.h    the rotation; one text, compiled for each of them
// encode.h      from vectors to streams, likewise

#include <math.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

constexpr int PAGE = 128;        // tokens
constexpr int BLOCK = 32;        // tokens of a block in KEY order
constexpr int ROW = 64;          // bytes of a packed row
constexpr int CHUNK = 4;         // pages that share a softmax step
constexpr int KEYS_AHEAD = 6144;    // bytes fetched before they are needed
constexpr int VALUES_AHEAD = 3072;  // likewise of each page of a chunk, which are read in turns
constexpr int MAX_SIZE = 1024;   // coordinates of a head
constexpr int MAX_ROTARY = 128;  // rotary coordinates
constexpr float TURNED_MAX = 8191;  // of a rotary query: sums of 16-bit products stay below 2^31
constexpr int SPLIT_PAGES = 8;   // pages worth a task of their own
constexpr int LEVEL_OFFSET = 128;  // makes levels unsigned
constexpr int QUERY_STEPS = 128;   // second bytes of a query to one step of the first

// Where a query needs its second bytes: scores would be off by more than this without (standard deviation), and the
// page's weights together are so much of the largest one.
constexpr float COARSE_SCORE = 0.02f;
constexpr float MATTERS = 0.02f;

// The rates of `layout.py`: bits of a code in both segments, coordinates of a unit.
struct Rate5 { static constexpr int MAIN = 5, TAIL = 4, DIMS = 1; };
struct Rate4 { static constexpr int MAIN = 4, TAIL = 3, DIMS = 1; };
struct Rate3_5 { static constexpr int MAIN = 7, TAIL = 6, DIMS = 2; };
struct Rate3 { static constexpr int MAIN = 6, TAIL = 5, DIMS = 2; };
struct Rate2_5 { static constexpr int MAIN = 5, TAIL = 4, DIMS = 2; };
struct Rate2 { static constexpr int MAIN = 4, TAIL = 3, DIMS = 2; };

// Where the parts of a stream begin. Its tail is 16 units, its main segment `groups` times as many.
template <class R> struct Stream {
  int size, groups;
  int64_t tail, scales, bytes;
  explicit Stream(int size)
      : size(size), groups(size / (16 * R::DIMS) - 1), tail((int64_t)groups * 4 * R::MAIN * ROW),
        scales(tail + 4 * R::TAIL * ROW), bytes(scales + 2 * PAGE) {}
};

struct Rotation {  // as in `native.py`
  const float* signs;  // [size]
  const float* paley;  // [12, 12]
  float norm;
};

struct StreamLevels {  // as in `native.py`: codebooks of a stream's segments, [coordinate of a code, code]
  const int8_t* segment[2];  // in units
  float unit;
  const float* exact[2];
};

extern "C" struct Call {  // as in `native.py`
  int32_t body, rates, threads, heads, rows, head_size, first_size, second_size, value_only;
  int64_t pages, head_bytes, first_position;
  const uint8_t* const* page;  // pages of the layer
  const float* query;          // [heads, rows, head_size]
  Rotation rotation[2];        // of both streams
  const int32_t* place[2];     // value only: the head's dimensions in each stream
  const float* key_norm;       // value only: [head_size]
  StreamLevels levels[2];      // of both streams
  const int16_t* rope;         // value only: see `native_attention.py`
  const double* frequencies;   // value only: [second_size / 2]
  const float* bias;           // null, or what is added to scores: [heads, rows, pages · PAGE]
  float* out;                  // [heads, rows, head_size]
  float* lse;                  // [heads, rows]
  float rope_unit;
};

struct Segment {  // of a vector, as in `native.py`
  int32_t bits, dims, units;
  const uint8_t* table;    // of a pair codebook: the code of each cell
  const float* midpoints;  // of a scalar one
  const float* levels;     // [code, coordinate]
};

extern "C" struct EncodeCall {  // as in `native.py`
  int32_t body, streams, tokens, size, segments, value_order, unbiased;
  Rotation rotation;
  const float* x;       // [streams, tokens, size]
  uint8_t* out;         // [streams, stream_bytes]
  int64_t stream_bytes;
  Segment segment[2];
};

struct Task {  // `count` neighbouring queries of one KV head over pages first ... last − 1
  int head, count;
  int64_t first, last;
  const float *query, *turned;  // [count, first_size] in the rotated basis; value only: [count, second_size], not in it
  const float* bias;            // null, or [count, pages · PAGE]
  float *maximum, *sum, *out;
};

// Which query lane h of a pass works on: where the task has less, its last one again, for nothing.
static inline int query_of(const Task& task, int h) { return h < task.count ? h : task.count - 1; }

struct Chunk {
  int pages;
  const uint8_t* page[CHUNK];
};

// Runs F for the rates of a head's streams, as `native_attention.py` numbers them.
template <template <class, class, bool> class F> static void dispatch(const Call& call, const Task& task) {
  switch (call.rates) {
    case 0: return F<Rate4, Rate4, true>::run(call, task);
    case 1: return F<Rate3_5, Rate3_5, true>::run(call, task);
    case 2: return F<Rate2_5, Rate2_5, true>::run(call, task);
    case 3: return F<Rate5, Rate3, false>::run(call, task);
    case 4: return F<Rate4, Rate4, false>::run(call, task);
    case 5: return F<Rate4, Rate3, false>::run(call, task);
    case 6: return F<Rate3, Rate2, false>::run(call, task);
  }
}

#if defined(__x86_64__)
namespace avx512 {
#include "avx512.h"
#include "hadamard.h"
#include "encode.h"
#include "attention.h"
}
namespace avx2 {
#include "avx2.h"
#include "hadamard.h"
#include "encode.h"
#include "attention.h"
}
#endif
namespace portable {
#define TARGET
#include "hadamard.h"
#include "encode.h"
#undef TARGET
#include "portable.h"
}

using Body = void (*)(const Call&, const Task&);
using Encoder = void (*)(const EncodeCall&, const float*, uint8_t*);
using Rotator = void (*)(const Rotation&, int, bool, float*, int64_t, int64_t);

#if defined(__x86_64__)
static const Body BODIES[] = {portable::attend_any, avx2::attend_any, avx512::attend_any};
static const Encoder ENCODERS[] = {portable::encode, avx2::encode, avx512::encode};
static const Rotator ROTATORS[] = {portable::rotate, avx2::rotate, avx512::rotate};
#else
static const Body BODIES[] = {portable::attend_any};
static const Encoder ENCODERS[] = {portable::encode};
static const Rotator ROTATORS[] = {portable::rotate};
#endif

struct Work {
  const Call* call;
  const Task* tasks;
  int count, next;
};

static void* work_off(void* at) {
  Work& work = *(Work*)at;
  for (int i; (i = __atomic_fetch_add(&work.next, 1, __ATOMIC_RELAXED)) < work.count;)
    BODIES[work.call->body](*work.call, work.tasks[i]);
  return nullptr;
}

static void run(Work& work, int threads) {
  if (threads > work.count) threads = work.count;
  auto* others = (pthread_t*)malloc(sizeof(pthread_t) * threads);
  int started = 0;
  while (started < threads - 1 && !pthread_create(&others[started], nullptr, work_off, &work)) started++;
  work_off(&work);
  for (int i = 0; i < started; i++) pthread_join(others[i], nullptr);
  free(others);
}

// Joins the splits of one query; tasks of a split lie `stride` apart.
static void merge(const Task* task, int splits, int stride, int h, int size, float* out, float* lse) {
  float most = -INFINITY, sum = 0;
  for (int s = 0; s < splits; s++) most = fmaxf(most, task[s * stride].maximum[h]);
  memset(out, 0, sizeof(float) * size);
  for (int s = 0; s < splits; s++) {
    const Task& part = task[s * stride];
    float weight = expf(part.maximum[h] - most);
    sum += weight * part.sum[h];
    for (int i = 0; i < size; i++) out[i] += weight * part.out[h * size + i];
  }
  for (int i = 0; i < size; i++) out[i] /= sum;
  *lse = most + logf(sum);
}

// Queries that share a pass. Passes are made for eight, four or one; six in one for eight take no longer than four and two.
static int group_size(int left) { return left >= 8 ? 8 : left >= 6 ? left : left >= 4 ? 4 : left == 3 ? 3 : 1; }

// The best body this processor runs: 0 portable, 1 AVX2, 2 AVX-512 with VNNI and VBMI.
extern "C" int g4_best_body() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vbmi") &&
      __builtin_cpu_supports("avx512vnni"))
    return 2;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return 1;
#endif
  return 0;
}

// The queries' dimensions of a stream, [rows, size].
static void gather(const Call& call, int64_t rows, int stream, int size, const float* factor, float* to) {
  for (int64_t row = 0; row < rows; row++)
    for (int i = 0; i < size; i++) {
      int at = call.value_only ? call.place[stream][i] : i;
      to[row * size + i] = call.query[row * call.head_size + at] * (factor ? factor[at] : 1);
    }
}

// Outputs [rows, head_size] back from the streams' bases, and each dimension to its place.
static void put_back(const Call& call, int64_t rows, float* merged) {
  int size = call.head_size, first_size = call.value_only ? call.first_size : 0;
  Rotator rotate = ROTATORS[call.body];
  if (call.value_only) rotate(call.rotation[0], first_size, true, merged, size, rows);
  rotate(call.rotation[1], call.second_size, true, merged + first_size, size, rows);
  for (int64_t at = 0; at < rows * size; at += size)
    for (int i = 0; i < size; i++) {
      int to = !call.value_only ? i : i < first_size ? call.place[0][i] : call.place[1][i - first_size];
      call.out[at + to] = merged[at + i];
    }
}

extern "C" void g4_decode_attention(const Call* call) {
  int size = call->head_size, groups = 0;
  for (int row = 0; row < call->rows; row += group_size(call->rows - row)) groups++;
  int streams = call->heads * groups;
  int64_t rows = (int64_t)call->heads * call->rows, chunks = (call->pages + CHUNK - 1) / CHUNK;
  int64_t splits = call->threads > 1 ? (4 * call->threads + streams - 1) / streams : 1;
  if (splits > chunks * CHUNK / SPLIT_PAGES) splits = chunks * CHUNK / SPLIT_PAGES;
  if (splits < 1) splits = 1;
  auto* tasks = (Task*)malloc(sizeof(Task) * streams * splits);
  auto* query = (float*)malloc(sizeof(float) * rows * (call->first_size + call->second_size + splits * (size + 2) + size));
  float *turned = query + rows * call->first_size, *merged = turned + rows * call->second_size;
  gather(*call, rows, 0, call->first_size, call->value_only ? call->key_norm : nullptr, query);
  ROTATORS[call->body](call->rotation[0], call->first_size, false, query, call->first_size, rows);
  if (call->value_only) gather(*call, rows, 1, call->second_size, nullptr, turned);
  float* next = merged + rows * size;
  int count = 0;
  for (int64_t split = 0; split < splits; split++) {
    int64_t first = chunks * split / splits * CHUNK, last = chunks * (split + 1) / splits * CHUNK;
    for (int64_t row = 0; row < rows;) {
      int n = group_size(call->rows - (int)(row % call->rows));
      tasks[count++] = {(int)(row / call->rows), n, first, last < call->pages ? last : call->pages,
                        query + row * call->first_size, turned + row * call->second_size,
                        call->bias ? call->bias + row * call->pages * PAGE : nullptr, next, next + n, next + 2 * n};
      next += (int64_t)n * (size + 2);
      row += n;
    }
  }
  Work work{call, tasks, count, 0};
  run(work, call->threads);
  for (int i = 0, row = 0; i < streams; i++)
    for (int h = 0; h < tasks[i].count; h++, row++)
      merge(tasks + i, (int)splits, streams, h, size, merged + (int64_t)row * size, call->lse + row);
  put_back(*call, rows, merged);
  free(query);
  free(tasks);
}

extern "C" void g4_encode(const EncodeCall* call) {
  for (int64_t i = 0; i < call->streams; i++)
    ENCODERS[call->body](*call, call->x + i * call->tokens * call->size, call->out + i * call->stream_bytes);
}
