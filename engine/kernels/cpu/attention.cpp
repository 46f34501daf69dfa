// Packed causal attention over the paged cache, for any mix of chunks and single tokens (online softmax, arXiv 2205.14135).
//
// A query vector is one (token, head); the vectors of one row that share a KV head are taken in tiles of up to kTile, so that a single
// token and a prompt chunk are the same code. Keys lie transposed in their block ([head_dim, block_size]): one load takes one channel of
// as many keys as there are lanes, and their scores grow in one register a query, with no sum across lanes.
//
// qkv T [tokens, (heads + 2 kv_heads) * head_dim], out T [tokens, heads * head_dim]; head_dim and block_size are multiples of 16.
#include <algorithm>
#include <vector>

#include "vec.h"

namespace {

constexpr int kTile = 24;
constexpr int kScoreTile = kRegisters == 32 ? 24 : 6;   // queries whose scores are in registers at once, kKeyVectors each
constexpr int kKeyVectors = kRegisters == 32 ? 1 : 2;
constexpr int kScoreSums = kRegisters == 32 ? 16 : 12;  // registers for the scores of few queries
constexpr int kSpan = kKeyVectors * kLanes;             // keys that are scored together; block_size is a multiple of it
constexpr int kKeys = 128;     // keys a pass of the online softmax takes
constexpr int kValueTile = 6;  // queries whose outputs are in registers at once, two or four vectors each
constexpr float kNone = -1e30f;

struct Shape {
    int64_t heads, kv_heads, head_dim, block_size, max_blocks, window;
    float scale;
    int64_t group() const { return heads / kv_heads; }
    int64_t qkv_width() const { return (heads + 2 * kv_heads) * head_dim; }
};

struct Task {
    int32_t row, kv_head, first, count;  // query vectors `first` to `first + count` of the row, counted token by token
};

struct Scratch {
    std::vector<float> queries;  // [head_dim, kTile], scaled
    std::vector<float> out;      // [kTile, head_dim]
    float scores[kTile][kKeys];
    float most[kTile], total[kTile];
    int64_t first_key[kTile], last_key[kTile];  // the keys a query sees: first to last, last excluded
};

// The tile's scores from key j of the pass on, still kKeys apart.
inline float (*column(Scratch& s, int64_t j))[kKeys] {
    return reinterpret_cast<float(*)[kKeys]>(&s.scores[0][j]);
}

// How many independent sums each score is made of, to hide the latency of an addition.
constexpr int num_splits(int queries) {
    int vectors = queries * kKeyVectors;
    return 4 * vectors <= kScoreSums ? 4 : 2 * vectors <= kScoreSums ? 2 : 1;
}

// scores[i][0..kSpan) = queries[i] . keys
template <int N, class T>
void block_scores(const float* queries, const T* keys, int64_t head_dim, int64_t stride, float (*scores)[kKeys]) {
    constexpr int kSplit = num_splits(N);
    Vec acc[kSplit][N][kKeyVectors] = {};
    for (int64_t d = 0; d < head_dim; d += kSplit)
#pragma GCC unroll 4
        for (int u = 0; u < kSplit; u++) {
            Vec k[kKeyVectors];
#pragma GCC unroll 2
            for (int v = 0; v < kKeyVectors; v++) k[v] = load(keys + (d + u) * stride + v * kLanes);
#pragma GCC unroll 24
            for (int i = 0; i < N; i++)
#pragma GCC unroll 2
                for (int v = 0; v < kKeyVectors; v++) acc[u][i][v] += queries[(d + u) * kTile + i] * k[v];
        }
#pragma GCC unroll 24
    for (int i = 0; i < N; i++)
#pragma GCC unroll 2
        for (int v = 0; v < kKeyVectors; v++) {
            Vec all = acc[0][i][v];
#pragma GCC unroll 4
            for (int u = 1; u < kSplit; u++) all += acc[u][i][v];
            store(scores[i] + v * kLanes, all);
        }
}

// Up to N queries.
template <int N, class T>
void few_scores(int count, const float* queries, const T* keys, int64_t head_dim, int64_t stride, float (*scores)[kKeys]) {
    if (count == N) return block_scores<N>(queries, keys, head_dim, stride, scores);
    if constexpr (N > 1) few_scores<N - 1>(count, queries, keys, head_dim, stride, scores);
}

template <class T>
void tile_scores(int count, const float* queries, const T* keys, int64_t head_dim, int64_t stride, float (*scores)[kKeys]) {
    for (; count > kScoreTile; count -= kScoreTile, queries += kScoreTile, scores += kScoreTile)
        block_scores<kScoreTile>(queries, keys, head_dim, stride, scores);
    constexpr int kFew = std::min(8, kScoreTile);
    if (count <= kFew) return few_scores<kFew>(count, queries, keys, head_dim, stride, scores);
    // Above, what is computed for queries that there are not costs less than code of its own.
    return count <= 16 ? block_scores<std::min(16, kScoreTile)>(queries, keys, head_dim, stride, scores) : block_scores<kScoreTile>(queries, keys, head_dim, stride, scores);
}

// Scores to weights in place, keys outside the query's view to 0; rescales what was summed so far.
inline void softmax_pass(Scratch& s, int i, int64_t start, int64_t keys, int64_t head_dim) {
    float* scores = s.scores[i];
    int64_t low = std::max<int64_t>(s.first_key[i] - start, 0), high = std::min(s.last_key[i] - start, keys);
    int64_t padded = (keys + kLanes - 1) / kLanes * kLanes;
    for (int64_t j = 0; j < std::min(low, padded); j++) scores[j] = kNone;
    for (int64_t j = std::max<int64_t>(high, 0); j < padded; j++) scores[j] = kNone;
    if (low >= high) return std::fill(scores, scores + padded, 0.f);
    Vec most = splat(s.most[i]);
    for (int64_t j = 0; j < padded; j += kLanes) most = max(most, load(scores + j));
    float top = max(most);
    Vec total{};
    for (int64_t j = 0; j < padded; j += kLanes) {
        Vec weight = exp(load(scores + j) - top);
        store(scores + j, weight);
        total += weight;
    }
    float keep = exp(splat(s.most[i] - top))[0];
    s.total[i] = s.total[i] * keep + sum(total);
    s.most[i] = top;
    if (keep != 1.f)
        for (int64_t d = 0; d < head_dim; d += kLanes) store(&s.out[i * head_dim + d], load(&s.out[i * head_dim + d]) * keep);
}

// out[i][0..V vectors) += weights[i] . values[.., 0..V vectors), over the keys of one span
template <int N, int V, class T>
void value_columns(const float (*weights)[kKeys], const T* values, int64_t keys, int64_t head_dim, float* out) {
    Vec acc[N][V] = {};
    for (int64_t j = 0; j < keys; j++) {
#pragma GCC unroll 4
        for (int v = 0; v < V; v++) {
            Vec value = load(values + j * head_dim + v * kLanes);
#pragma GCC unroll 6
            for (int i = 0; i < N; i++) acc[i][v] += weights[i][j] * value;
        }
    }
#pragma GCC unroll 6
    for (int i = 0; i < N; i++)
#pragma GCC unroll 4
        for (int v = 0; v < V; v++) store(out + i * head_dim + v * kLanes, load(out + i * head_dim + v * kLanes) + acc[i][v]);
}

template <int N, class T>
void block_values(const float (*weights)[kKeys], const T* values, int64_t keys, int64_t head_dim, float* out) {
    constexpr int V = kRegisters == 32 || N <= 3 ? 4 : 2;
    int64_t d = 0;
    for (; d + V * kLanes <= head_dim; d += V * kLanes) value_columns<N, V>(weights, values + d, keys, head_dim, out + d);
    for (; d < head_dim; d += kLanes) value_columns<N, 1>(weights, values + d, keys, head_dim, out + d);
}

template <class T>
void tile_values(int count, const float (*weights)[kKeys], const T* values, int64_t keys, int64_t head_dim, float* out) {
    for (; count >= kValueTile; count -= kValueTile, weights += kValueTile, out += kValueTile * head_dim)
        block_values<kValueTile>(weights, values, keys, head_dim, out);
    switch (count) {
        case 5: return block_values<5>(weights, values, keys, head_dim, out);
        case 4: return block_values<4>(weights, values, keys, head_dim, out);
        case 3: return block_values<3>(weights, values, keys, head_dim, out);
        case 2: return block_values<2>(weights, values, keys, head_dim, out);
        case 1: return block_values<1>(weights, values, keys, head_dim, out);
    }
}

template <class T>
struct Attention {
    const T *qkv, *keys, *values;
    const int32_t *query_starts, *context_lens, *block_tables;
    T* out;
    Shape shape;

    int64_t num_queries(int64_t row) const { return (query_starts[row + 1] - query_starts[row]) * shape.group(); }

    std::vector<Task> tasks(int64_t rows) const {
        std::vector<Task> list;
        for (int32_t row = 0; row < rows; row++)
            for (int32_t first = 0; first < num_queries(row); first += kTile)
                for (int32_t head = 0; head < shape.kv_heads; head++)
                    list.push_back({row, head, first, int32_t(std::min<int64_t>(kTile, num_queries(row) - first))});
        // The longest first: the last task to be taken is then a short one.
        std::stable_sort(list.begin(), list.end(), [this](const Task& a, const Task& b) {
            return int64_t(context_lens[a.row]) * a.count > int64_t(context_lens[b.row]) * b.count;
        });
        return list;
    }

    void begin(const Task& task, Scratch& s) const {
        int64_t length = query_starts[task.row + 1] - query_starts[task.row];
        for (int i = 0; i < task.count; i++) {
            int64_t token = (task.first + i) / shape.group(), head = task.kv_head * shape.group() + (task.first + i) % shape.group();
            const T* q = qkv + (query_starts[task.row] + token) * shape.qkv_width() + head * shape.head_dim;
            for (int64_t d = 0; d < shape.head_dim; d++) s.queries[d * kTile + i] = to_float(q[d]) * shape.scale;
            s.last_key[i] = context_lens[task.row] - length + token + 1;
            s.first_key[i] = shape.window ? std::max<int64_t>(0, s.last_key[i] - shape.window) : 0;
            s.most[i] = kNone;
            s.total[i] = 0;
        }
        std::fill(s.out.begin(), s.out.begin() + task.count * shape.head_dim, 0.f);
    }

    // The block that holds key `at`, of this task's head.
    int64_t block_offset(const Task& task, int64_t at) const {
        return (int64_t(block_tables[task.row * shape.max_blocks + at / shape.block_size]) * shape.kv_heads + task.kv_head) * shape.head_dim * shape.block_size;
    }

    // Blocks lie anywhere, so the processor cannot guess the next one: ask for it while this one is computed.
    void fetch(const T* cache, const Task& task, int64_t at) const {
        const char* block = reinterpret_cast<const char*>(cache + block_offset(task, at));
        for (size_t byte = 0; byte < shape.head_dim * shape.block_size * sizeof(T); byte += 64) __builtin_prefetch(block + byte);
    }

    void pass(const Task& task, Scratch& s, int64_t start, int64_t count) const {
        for (int64_t j = 0; j < count; j += kSpan) {
            if ((start + j) % shape.block_size == 0) {
                if (start + j + shape.block_size < s.last_key[task.count - 1]) fetch(keys, task, start + j + shape.block_size);
                fetch(values, task, start + j);
            }
            const T* block = keys + block_offset(task, start + j) + (start + j) % shape.block_size;
            tile_scores(task.count, s.queries.data(), block, shape.head_dim, shape.block_size, column(s, j));
        }
        for (int i = 0; i < task.count; i++) softmax_pass(s, i, start, count, shape.head_dim);
        for (int64_t j = 0; j < count; j += kSpan) {
            const T* block = values + block_offset(task, start + j) + (start + j) % shape.block_size * shape.head_dim;
            tile_values(task.count, column(s, j), block, std::min<int64_t>(kSpan, count - j), shape.head_dim, s.out.data());
        }
    }

    void end(const Task& task, Scratch& s) const {
        for (int i = 0; i < task.count; i++) {
            int64_t token = (task.first + i) / shape.group(), head = task.kv_head * shape.group() + (task.first + i) % shape.group();
            T* to = out + (query_starts[task.row] + token) * shape.heads * shape.head_dim + head * shape.head_dim;
            const float share = 1.f / s.total[i];
            for (int64_t d = 0; d < shape.head_dim; d += kLanes) store(to + d, load(&s.out[i * shape.head_dim + d]) * share);
        }
    }

    void run(const Task& task, Scratch& s) const {
        begin(task, s);
        int64_t stop = s.last_key[task.count - 1];
        for (int64_t start = s.first_key[0] / kSpan * kSpan; start < stop; start += kKeys) pass(task, s, start, std::min<int64_t>(kKeys, stop - start));
        end(task, s);
    }

    void run_all(int64_t rows) const {
        std::vector<Task> list = tasks(rows);
#pragma omp parallel
        {
            Scratch scratch;
            scratch.queries.assign(shape.head_dim * kTile, 0.f);
            scratch.out.assign(kTile * shape.head_dim, 0.f);
#pragma omp for schedule(dynamic, 1)
            for (size_t i = 0; i < list.size(); i++) run(list[i], scratch);
        }
    }
};

}  // namespace

extern "C" void attention_float32(const float* qkv, const float* keys, const float* values, const int32_t* query_starts, const int32_t* context_lens,
                                  const int32_t* block_tables, float* out, int64_t rows, int64_t heads, int64_t kv_heads, int64_t head_dim,
                                  int64_t block_size, int64_t max_blocks, int64_t window, float scale) {
    Attention<float>{qkv, keys, values, query_starts, context_lens, block_tables, out, {heads, kv_heads, head_dim, block_size, max_blocks, window, scale}}.run_all(rows);
}

extern "C" void attention_bfloat16(const Bfloat16* qkv, const Bfloat16* keys, const Bfloat16* values, const int32_t* query_starts,
                                   const int32_t* context_lens, const int32_t* block_tables, Bfloat16* out, int64_t rows, int64_t heads,
                                   int64_t kv_heads, int64_t head_dim, int64_t block_size, int64_t max_blocks, int64_t window, float scale) {
    Attention<Bfloat16>{qkv, keys, values, query_starts, context_lens, block_tables, out, {heads, kv_heads, head_dim, block_size, max_blocks, window, scale}}.run_all(rows);
}
