// y = W x over the inputs that exceed a threshold, for a few tokens: only the rows of those inputs are read.
// Compiled and called by compiled_product.py.
//
// A thread has tiles of the outputs. Each sum is made by one thread, in the order of the inputs, by the same
// operations: so its bits depend neither on the number of threads nor on the other tokens.
//
// Axes: T tokens, I inputs, O outputs, K kept inputs of a token.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

constexpr int64_t ROWS = 8;     // added at a time, so that a sum is loaded and stored once for all of them
constexpr int64_t TILE = 2048;  // outputs, at most: their sums stay in the first cache
constexpr int64_t CHUNK = 64;   // inputs: what one token has read of them is in the second cache for the next token
constexpr int64_t LINE = 32;    // outputs: tiles begin at whole cache lines

struct BFloat16 {
    uint16_t bits;
};

struct Kept {
    int32_t input;
    float x;
};

inline float widen(float value) { return value; }

inline float widen(BFloat16 value) {
    const uint32_t bits = uint32_t(value.bits) << 16;
    float wide;
    std::memcpy(&wide, &bits, sizeof wide);
    return wide;
}

inline int64_t divide_up(int64_t number, int64_t by) { return (number + by - 1) / by; }

// How many inputs are kept; nan is, so that it is seen in the outputs.
int64_t choose(const float *x_I, int64_t inputs, float threshold, Kept *kept_K) {
    int64_t count = 0;
    for (int64_t i = 0; i < inputs; i++) {
        kept_K[count] = {int32_t(i), x_I[i]};
        count += !(std::fabs(x_I[i]) <= threshold);
    }
    return count;
}

template <int64_t N, class Weight>
void add_rows(const Kept *kept, const Weight *weight_IO, int64_t outputs, int64_t width, float *__restrict sum_O) {
    const Weight *row[N];
    float x[N];
    for (int64_t n = 0; n < N; n++) {
        row[n] = weight_IO + kept[n].input * outputs;
        x[n] = kept[n].x;
    }
#pragma omp simd
    for (int64_t o = 0; o < width; o++) {
        float sum = sum_O[o];
#pragma GCC unroll 8
        for (int64_t n = 0; n < N; n++) sum += x[n] * widen(row[n][o]);
        sum_O[o] = sum;
    }
}

template <class Weight>
void add_kept_rows(const float *x_TI, const Weight *weight_IO, float *sum_TO, float threshold, int64_t tokens,
                   int64_t inputs, int64_t outputs, int64_t threads) {
    std::vector<Kept> kept_TK(tokens * inputs);
    std::vector<int64_t> count_T(tokens);
    for (int64_t t = 0; t < tokens; t++)
        count_T[t] = choose(x_TI + t * inputs, inputs, threshold, kept_TK.data() + t * inputs);
    const int64_t tiles = threads * divide_up(outputs, threads * TILE);
    const int64_t most = divide_up(divide_up(outputs, std::max<int64_t>(tiles, 1)), LINE) * LINE;
    // On a busy machine a thread may come late: those that are there take its tiles.
#pragma omp parallel for num_threads(threads) schedule(dynamic)
    for (int64_t tile = 0; tile < tiles; tile++) {
        const int64_t start = tile * most, width = std::min(most, outputs - start);
        std::vector<int64_t> done_T(tokens);
        for (int64_t end = CHUNK; end < inputs + CHUNK; end += CHUNK)
            for (int64_t t = 0; t < tokens; t++) {
                const Kept *kept_K = kept_TK.data() + t * inputs;
                float *sum_O = sum_TO + t * outputs + start;
                int64_t &done = done_T[t];
                for (; done + ROWS <= count_T[t] && kept_K[done + ROWS - 1].input < end; done += ROWS)
                    add_rows<ROWS>(kept_K + done, weight_IO + start, outputs, width, sum_O);
                for (; end >= inputs && done < count_T[t]; done++)
                    add_rows<1>(kept_K + done, weight_IO + start, outputs, width, sum_O);
            }
    }
}

}  // namespace

// sum_TO must be 0. All matrices lie in memory row by row.
extern "C" void add_kept_rows_float32(const float *x_TI, const float *weight_IO, float *sum_TO, float threshold,
                                      int64_t tokens, int64_t inputs, int64_t outputs, int64_t threads) {
    add_kept_rows(x_TI, weight_IO, sum_TO, threshold, tokens, inputs, outputs, threads);
}

extern "C" void add_kept_rows_bfloat16(const float *x_TI, const BFloat16 *weight_IO, float *sum_TO, float threshold,
                                       int64_t tokens, int64_t inputs, int64_t outputs, int64_t threads) {
    add_kept_rows(x_TI, weight_IO, sum_TO, threshold, tokens, inputs, outputs, threads);
}
