// Convolution, rung "blocked": implicit GEMM in registers. A block computes BM target pixels x BN channels, a thread 8 x 8 of
// them (4 x 8 in float64), so that 16 numbers read from shared memory make 64 products. Global memory is read in pieces of 16 bytes, the next
// tile's while this one is multiplied; shared memory holds both (double buffering: one barrier a tile). Rows of 16 bytes ask
// for channels that are a multiple of 16 / sizeof(T). conv2d.cu has the ladder.

#include "conv2d.cuh"

static const int COLUMNS = 8;  // channels of a thread
static const int PIECES = 4;   // of 16 bytes: a row of a tile

// One piece of 16 bytes.
template <typename T>
struct __align__(16) Piece {
    static const int LENGTH = 16 / sizeof(T);
    T at[LENGTH];
};

// Rows of a thread: 64 sums of float32 and half as many of float64 fill its registers.
template <typename T>
struct Rows {
    static const int COUNT = 32 / sizeof(T);
};

template <typename T>
inline __device__ Piece<T> load(const T* from, bool exists) {
    Piece<T> piece = {};
    if (exists) piece = *(const Piece<T>*)from;
    return piece;
}

// 0 where ReLU did not let `from` pass: channels `channel` and on of `pixel`.
template <typename T>
inline __device__ void apply_mask(Piece<T>& piece, const unsigned char* mask, long long pixel, int channel, int K) {
    for (int j = 0; j < Piece<T>::LENGTH; j++)
        if (!passes(mask, pixel, channel + j, K)) piece.at[j] = 0;
}

// The products of one tile: a [DEPTH][BM + 4], b [DEPTH][BN + 4]. A thread's channels are two groups of four, half a tile
// apart, so that neighbouring threads read neighbouring pieces.
template <typename T, int DEPTH, int BM, int BN>
inline __device__ void multiply(const T* a, const T* b, int m0, int n0, Four<T> (&sum)[Rows<T>::COUNT][2]) {
    constexpr int ROWS = Rows<T>::COUNT;
#pragma unroll
    for (int k = 0; k < DEPTH; k++) {
        Four<T> of_a[ROWS / 4], of_b[2];
        for (int i = 0; i < ROWS / 4; i++) of_a[i] = *(const Four<T>*)(a + k * (BM + 4) + m0 + 4 * i);
        for (int i = 0; i < 2; i++) of_b[i] = *(const Four<T>*)(b + k * (BN + 4) + n0 + BN / 2 * i);
#pragma unroll
        for (int m = 0; m < ROWS; m++)
#pragma unroll
            for (int n = 0; n < COLUMNS; n++)
                sum[m][n / 4].at[n % 4] =
                    multiply_add(of_a[m / 4].at[m % 4], of_b[n / 4].at[n % 4], sum[m][n / 4].at[n % 4]);
    }
}

template <typename T, int BM, int BN, bool BACKWARD, bool MASKED, bool RELU>
__global__ void __launch_bounds__(BM* BN / (COLUMNS * Rows<T>::COUNT))
    conv2d_blocked(const T* __restrict__ source,            // [N, source height, source width, source channels]
                   const T* __restrict__ w,                 // [channels, R, S, source channels of a group]
                   const T* __restrict__ bias,              // [channels], or null
                   const unsigned char* __restrict__ mask,  // of the source
                   T* __restrict__ target,                  // [N, height, width, channels]
                   unsigned char* __restrict__ bits,        // of the target
                   CONV2D_SIZES) {
    constexpr int ROWS = Rows<T>::COUNT, THREADS = BM * BN / (ROWS * COLUMNS), LENGTH = Piece<T>::LENGTH, DEPTH = PIECES * LENGTH;
    constexpr int A_LOADS = BM * PIECES / THREADS, B_LOADS = BN * PIECES / THREADS;
    constexpr int A_SIZE = DEPTH * (BM + 4), B_SIZE = DEPTH * (BN + 4);
    __shared__ Four<T> a_tiles[2 * A_SIZE / 4], b_tiles[2 * B_SIZE / 4];
    T *const a = a_tiles->at, *const b = b_tiles->at;
    const Conv2d geo = CONV2D_GEOMETRY;
    const Roles<BACKWARD> roles(geo);
    const int depth = roles.source_channels, tiles = (roles.channels + BN - 1) / BN;
    const int group = blockIdx.y / tiles, channel0 = blockIdx.y % tiles * BN, thread = threadIdx.x;
    const long long pixels = (long long)N * roles.height * roles.width, pixel0 = (long long)blockIdx.x * BM;
    const int piece = thread % PIECES, row = thread / PIECES;  // while loading: rows `row`, `row` + THREADS / 4, ...
    const int m0 = thread / (BN / COLUMNS) * ROWS, n0 = thread % (BN / COLUMNS) * 4;
    const int chunks = (depth + DEPTH - 1) / DEPTH, steps = R * S * chunks;

    long long from[A_LOADS];
    Piece<T> next_a[A_LOADS], next_b[B_LOADS];
    const auto fetch = [&](int step) {
        const int tap = step / chunks, d = step % chunks * DEPTH + piece * LENGTH;
        for (int i = 0; i < A_LOADS; i++) {
            const long long pixel = pixel0 + row + i * (THREADS / PIECES);
            if (step % chunks == 0) {
                from[i] = -1;
                if (pixel < pixels) {
                    const Place at(pixel, roles.height, roles.width, 1);
                    from[i] = roles.source(geo, at.n, at.h, at.w, tap / S, tap % S);
                }
            }
            const int channel = group * depth + d;
            const bool exists = from[i] >= 0 && d < depth;
            next_a[i] = load(source + from[i] * depth * groups + channel, exists);
            if (MASKED && exists) apply_mask(next_a[i], mask, from[i], channel, K);
        }
        for (int i = 0; i < B_LOADS; i++) {
            const int n = channel0 + row + i * (THREADS / PIECES);
            const long long weights = ((long long)group * roles.channels + n) * R * S + tap;
            next_b[i] = load(w + weights * depth + d, n < roles.channels && d < depth);
        }
    };
    const auto put = [&](int buffer) {  // turned: a thread's pieces are columns of the tiles in shared memory
        for (int j = 0; j < LENGTH; j++) {
            const int k = piece * LENGTH + j;
            for (int i = 0; i < A_LOADS; i++) a[buffer * A_SIZE + k * (BM + 4) + row + i * (THREADS / PIECES)] = next_a[i].at[j];
            for (int i = 0; i < B_LOADS; i++) b[buffer * B_SIZE + k * (BN + 4) + row + i * (THREADS / PIECES)] = next_b[i].at[j];
        }
    };

    Four<T> sum[ROWS][2] = {};
    fetch(0);
    put(0);
    for (int step = 0; step < steps; step++) {
        __syncthreads();  // this step's tile is there, and nobody reads the other buffer any more
        if (step + 1 < steps) fetch(step + 1);
        multiply<T, DEPTH, BM, BN>(a + step % 2 * A_SIZE, b + step % 2 * B_SIZE, m0, n0, sum);
        if (step + 1 < steps) put((step + 1) % 2);
    }
#pragma unroll
    for (int i = 0; i < ROWS; i++) {
        const long long pixel = pixel0 + m0 + i;
        for (int half = 0; half < 2; half++)
            finish<T, RELU>(sum[i][half], bias, target, bits, pixel < pixels, pixel, channel0 + n0 + BN / 2 * half,
                            roles.channels, group, groups);
    }
}

// dw: BM output channels x BN input channels of one tap, over part `blockIdx.z` of all output pixels. Rows of both tiles are
// pixels, whose channels lie side by side: nothing needs turning. The blocks of the first tap and input channels also add up
// dy, where the bias has a gradient.
template <typename T, int BM, int BN, bool MASKED>
__global__ void __launch_bounds__(BM* BN / (COLUMNS * Rows<T>::COUNT))
    conv2d_weight_blocked(const T* __restrict__ dy,                // [N, P, Q, K]
                          const T* __restrict__ x,                 // [N, H, W, C]
                          const unsigned char* __restrict__ mask,  // [N, P, Q, (K + 7) / 8]
                          T* __restrict__ parts,                   // [J, K, R, S, C / groups]
                          T* __restrict__ bias_parts,              // [J, K], or null
                          CONV2D_SIZES, int J) {
    constexpr int ROWS = Rows<T>::COUNT, THREADS = BM * BN / (ROWS * COLUMNS), LENGTH = Piece<T>::LENGTH, DEPTH = 8;  // pixels
    constexpr int A_ROW = BM / LENGTH, B_ROW = BN / LENGTH;                            // pieces of a row
    constexpr int A_LOADS = DEPTH * A_ROW / THREADS, B_LOADS = DEPTH * B_ROW / THREADS;
    constexpr int A_SIZE = DEPTH * (BM + 4), B_SIZE = DEPTH * (BN + 4);
    __shared__ Four<T> a_tiles[2 * A_SIZE / 4], b_tiles[2 * B_SIZE / 4];
    T *const a = a_tiles->at, *const b = b_tiles->at;
    const Conv2d geo = CONV2D_GEOMETRY;
    const Roles<false> roles(geo);
    const int outputs = roles.channels, inputs = roles.source_channels, tiles = (inputs + BN - 1) / BN;
    const int k0 = blockIdx.x / tiles * BM, c0 = blockIdx.x % tiles * BN, thread = threadIdx.x;
    const int group = blockIdx.y / (R * S), tap = blockIdx.y % (R * S), part = blockIdx.z;
    const long long pixels = (long long)N * P * Q, first = pixels * part / J, last = pixels * (part + 1) / J;
    const int m0 = thread / (BN / COLUMNS) * ROWS, n0 = thread % (BN / COLUMNS) * 4;
    const int steps = (int)((last - first + DEPTH - 1) / DEPTH);

    Piece<T> next_a[A_LOADS], next_b[B_LOADS];
    const auto fetch = [&](int step) {
        for (int i = 0; i < A_LOADS; i++) {
            const int unit = thread + i * THREADS, k = k0 + unit % A_ROW * LENGTH;
            const long long pixel = first + step * DEPTH + unit / A_ROW;
            const bool exists = pixel < last && k < outputs;
            next_a[i] = load(dy + pixel * K + group * outputs + k, exists);
            if (MASKED && exists) apply_mask(next_a[i], mask, pixel, group * outputs + k, K);
        }
        for (int i = 0; i < B_LOADS; i++) {
            const int unit = thread + i * THREADS, c = c0 + unit % B_ROW * LENGTH;
            const long long pixel = first + step * DEPTH + unit / B_ROW;
            long long from = -1;
            if (pixel < last && c < inputs) {
                const Place at(pixel, P, Q, 1);
                from = roles.source(geo, at.n, at.h, at.w, tap / S, tap % S);
            }
            next_b[i] = load(x + from * C + group * inputs + c, from >= 0);
        }
    };
    const auto put = [&](int buffer) {
        for (int i = 0; i < A_LOADS; i++) {
            const int unit = thread + i * THREADS;
            *(Piece<T>*)(a + buffer * A_SIZE + unit / A_ROW * (BM + 4) + unit % A_ROW * LENGTH) = next_a[i];
        }
        for (int i = 0; i < B_LOADS; i++) {
            const int unit = thread + i * THREADS;
            *(Piece<T>*)(b + buffer * B_SIZE + unit / B_ROW * (BN + 4) + unit % B_ROW * LENGTH) = next_b[i];
        }
    };

    const bool adds_bias = bias_parts && tap == 0 && c0 == 0 && thread < BM;
    T bias_sum = 0;
    Four<T> sum[ROWS][2] = {};
    fetch(0);
    put(0);
    for (int step = 0; step < steps; step++) {
        __syncthreads();
        if (step + 1 < steps) fetch(step + 1);
        multiply<T, DEPTH, BM, BN>(a + step % 2 * A_SIZE, b + step % 2 * B_SIZE, m0, n0, sum);
        for (int i = 0; adds_bias && i < DEPTH; i++) bias_sum += a[step % 2 * A_SIZE + i * (BM + 4) + thread];
        if (step + 1 < steps) put((step + 1) % 2);
    }
    for (int m = 0; m < ROWS; m++)
        for (int half = 0; half < 2; half++) {
            const int k = k0 + m0 + m, c = c0 + n0 + BN / 2 * half;
            const long long line = ((long long)part * K + group * outputs + k) * R * S + tap;
            if (k < outputs && c < inputs) *(Four<T>*)(parts + line * inputs + c) = sum[m][half];
        }
    if (adds_bias && k0 + thread < outputs) bias_parts[(long long)part * K + group * outputs + k0 + thread] = bias_sum;
}
