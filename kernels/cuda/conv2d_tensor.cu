// Convolution, rung "tensor": implicit GEMM by tensor cores, mma.sync with asynchronous copies. A block of four warps computes
// BM target pixels x BN channels. Tiles wait in a ring of STAGES buffers: cp.async fills one while others are multiplied.
//
// MODE says what float32 numbers become on their way into a product; sums are float32:
//
//   BF16     bfloat16, 8 bits of mantissa, when they are put into shared memory, unless memory has them so already (T):
//            then they are copied as they are; twice the numbers a piece
//   TF32     TF32, 11 bits, when they are read from there
//   TF32X3   big + small in TF32 each (Markidis et al., 2018): small big + big small + big big, nearly all of float32's 24
//            bits. (An infinity becomes NaN: infinity - infinity.)
//
// A row of a tile, one pixel or output channel, is four pieces of 16 bytes, in BF16 as in the others, and four more words of
// padding: so eight rows lie in different banks, and the words of a fragment are at the same places in all modes. Pieces ask
// for source channels that are a multiple of their length. conv2d.cu has the ladder; fragments are those of ptx.cuh.

#include "conv2d.cuh"
#include "ptx.cuh"

static const int BF16 = 0, TF32 = 1, TF32X3 = 3;
static const int THREADS = 128, STAGES = 3;
static const int PIECES = 4, ROW = 16 * PIECES + 16;  // bytes

struct __align__(16) Words {
    unsigned at[4];
};

// Puts one piece into shared memory: of the numbers at `from`, or zeros. With MASKED, 0 where ReLU did not let them pass:
// channels `channel` and on of `pixel`.
template <typename T, int MODE, bool MASKED>
inline __device__ void bring(unsigned char* to, const T* from, bool exists, const unsigned char* mask, long long pixel,
                             int channel, int K, const T* somewhere) {
    constexpr int LENGTH = MODE == BF16 ? 8 : 4;
    constexpr bool AS_THEY_ARE = LENGTH * sizeof(T) == 16;
    if (AS_THEY_ARE && !MASKED) {
        cp_async16(to, exists ? from : somewhere, exists ? 16 : 0);
        return;
    }
    Words words = {};
    if constexpr (AS_THEY_ARE && MODE == BF16) {
        if (exists) words = *(const Words*)from;
        for (int i = 0; exists && i < 4; i++) {
            if (!passes(mask, pixel, channel + 2 * i, K)) words.at[i] &= 0xFFFF0000u;
            if (!passes(mask, pixel, channel + 2 * i + 1, K)) words.at[i] &= 0xFFFFu;
        }
    } else if (exists) {
        float numbers[LENGTH];
        for (int i = 0; i < LENGTH; i += 4) {
            const Four<float> four = *(const Four<float>*)(from + i);
            for (int j = 0; j < 4; j++) numbers[i + j] = four.at[j];
        }
        for (int i = 0; MASKED && i < LENGTH; i++)
            if (!passes(mask, pixel, channel + i, K)) numbers[i] = 0;
        for (int i = 0; i < 4; i++)
            words.at[i] = MODE == BF16 ? pack_bfloat16(numbers[2 * i % LENGTH], numbers[(2 * i + 1) % LENGTH])
                                       : __float_as_uint(numbers[i]);
    }
    *(Words*)to = words;
}

// d += a b for a fragment each, in the precision of MODE.
template <int MODE>
struct Operand {  // COUNT words of a fragment
    unsigned big[4], small[4];
    inline __device__ void set(int i, unsigned word) {
        if (MODE == BF16) {
            big[i] = word;
            return;
        }
        const float x = __uint_as_float(word);
        big[i] = to_tf32(x);
        if (MODE == TF32X3) small[i] = to_tf32(x - __uint_as_float(big[i]));
    }
};

template <int MODE>
inline __device__ void multiply(float (&d)[4], const Operand<MODE>& a, const Operand<MODE>& b) {
    if (MODE == BF16) {
        mma_m16n8k16_bf16(d, a.big, b.big);
        return;
    }
    if (MODE == TF32X3) {
        mma_m16n8k8_tf32(d, a.small, b.big);
        mma_m16n8k8_tf32(d, a.big, b.small);
    }
    mma_m16n8k8_tf32(d, a.big, b.big);
}

// Two neighbouring channels of a pixel, stored at once where they lie on a multiple of their size.
template <typename T>
inline __device__ void store_two(T* to, float first, float second, int left) {
    struct __align__(2 * sizeof(T)) Two {
        T at[2];
    };
    if (left >= 2 && (unsigned long long)to % sizeof(Two) == 0) {
        *(Two*)to = Two{{first, second}};
        return;
    }
    if (left >= 1) to[0] = first;
    if (left >= 2) to[1] = second;
}

template <typename T, int MODE, int BM, int BN, bool BACKWARD, bool MASKED, bool RELU>
__global__ void __launch_bounds__(THREADS, 3)
    conv2d_tensor(const T* __restrict__ source,            // [N, source height, source width, source channels]
                  const T* __restrict__ w,                 // [channels, R, S, source channels of a group]
                  const float* __restrict__ bias,          // [channels], or null
                  const unsigned char* __restrict__ mask,  // of the source
                  T* __restrict__ target,                  // [N, height, width, channels]
                  unsigned char* __restrict__ bits,        // of the target
                  CONV2D_SIZES) {
    constexpr int LENGTH = MODE == BF16 ? 8 : 4, DEPTH = PIECES * LENGTH, PASS = THREADS / PIECES;  // rows a pass
    constexpr int M_TILES = BM / 2 / 16, N_TILES = BN / 2 / 8;  // of a warp, which has a quarter of the block's tile
    extern __shared__ __align__(16) unsigned char smem[];       // [STAGES][BM + BN][ROW]
    const Conv2d geo = CONV2D_GEOMETRY;
    const Roles<BACKWARD> roles(geo);
    const int depth = roles.source_channels, tiles = (roles.channels + BN - 1) / BN;
    const int group = blockIdx.y / tiles, channel0 = blockIdx.y % tiles * BN, thread = threadIdx.x;
    const long long pixels = (long long)N * roles.height * roles.width, pixel0 = (long long)blockIdx.x * BM;
    const int piece = thread % PIECES, row = thread / PIECES;
    const int chunks = (depth + DEPTH - 1) / DEPTH, steps = R * S * chunks;

    long long from[BM / PASS];
    const auto fetch = [&](int step) {
        unsigned char* const a = smem + step % STAGES * (BM + BN) * ROW + 16 * piece;
        unsigned char* const b = a + BM * ROW;
        const int tap = step / chunks, d = step % chunks * DEPTH + piece * LENGTH, channel = group * depth + d;
        for (int i = 0; i < BM / PASS; i++) {
            const long long pixel = pixel0 + row + i * PASS;
            if (step % chunks == 0) {
                from[i] = -1;
                if (pixel < pixels) {
                    const Place at(pixel, roles.height, roles.width, 1);
                    from[i] = roles.source(geo, at.n, at.h, at.w, tap / S, tap % S);
                }
            }
            bring<T, MODE, MASKED>(a + (row + i * PASS) * ROW, source + from[i] * depth * groups + channel,
                                from[i] >= 0 && d < depth, mask, from[i], channel, K, source);
        }
        for (int i = 0; i < BN / PASS; i++) {
            const int n = channel0 + row + i * PASS;
            const long long weights = ((long long)group * roles.channels + n) * R * S + tap;
            bring<T, MODE, false>(b + (row + i * PASS) * ROW, w + weights * depth + d, n < roles.channels && d < depth,
                                  mask, 0, 0, K, w);
        }
    };

    const int lane = thread % 32, warp = thread / 32;
    const int m0 = warp / 2 * (BM / 2), n0 = warp % 2 * (BN / 2);
    float sum[M_TILES][N_TILES][4] = {};
    for (int step = 0; step < STAGES - 1; step++) {
        if (step < steps) fetch(step);
        cp_async_commit();
    }
    for (int step = 0; step < steps; step++) {
        cp_async_wait<STAGES - 2>();
        __syncthreads();  // this step's tile is there for all, and nobody reads the one before any more
        if (step + STAGES - 1 < steps) fetch(step + STAGES - 1);
        cp_async_commit();
        const unsigned char* const a = smem + step % STAGES * (BM + BN) * ROW;
        const unsigned char* const b = a + BM * ROW;
        for (int half = 0; half < 2; half++) {  // of the row: eight words, the depth of one product
            Operand<MODE> of_a[M_TILES], of_b[N_TILES];
            unsigned words[4];
            for (int i = 0; i < M_TILES; i++) {
                ldmatrix_x4(words, a + (m0 + 16 * i + lane % 16) * ROW + 32 * half + lane / 16 * 16);
                for (int j = 0; j < 4; j++) of_a[i].set(j, words[j]);
            }
            for (int i = 0; i < N_TILES; i += 2) {
                ldmatrix_x4(words, b + (n0 + 8 * i + lane / 16 * 8 + lane % 8) * ROW + 32 * half + lane / 8 % 2 * 16);
                for (int j = 0; j < 4; j++) of_b[i + j / 2].set(j % 2, words[j]);
            }
            for (int i = 0; i < M_TILES; i++)
                for (int j = 0; j < N_TILES; j++) multiply<MODE>(sum[i][j], of_a[i], of_b[j]);
        }
    }

    const int total = roles.channels * groups;
#pragma unroll
    for (int i = 0; i < M_TILES; i++)
#pragma unroll
        for (int j = 0; j < N_TILES; j++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const long long pixel = pixel0 + m0 + 16 * i + 8 * half + lane / 4;
                const int channel = channel0 + n0 + 8 * j + lane % 4 * 2, first = group * roles.channels + channel;
                const int left = pixel < pixels ? roles.channels - channel : 0;
                float values[2] = {};
                unsigned byte = 0;
                for (int e = 0; e < 2 && e < left; e++) {
                    values[e] = sum[i][j][2 * half + e] + (bias ? bias[first + e] : 0);
                    if (!RELU) continue;
                    if (values[e] <= 0)  // NaN passes
                        values[e] = 0;
                    else
                        byte |= 1u << (lane % 4 * 2 + e);
                }
                store_two(target + pixel * total + first, values[0], values[1], left);
                if (RELU) {  // the four lanes of a pixel have the eight channels of a byte
                    byte |= __shfl_xor_sync(0xFFFFFFFFu, byte, 1);
                    byte |= __shfl_xor_sync(0xFFFFFFFFu, byte, 2);
                    if (lane % 4 == 0 && left > 0) bits[pixel * ((total + 7) / 8) + first / 8] = (unsigned char)byte;
                }
            }
}

// dw: 64 output channels x 64 input channels of one tap, over part `blockIdx.z` of all output pixels, 16 at a time. Rows of
// the tiles are pixels: fragments want them as columns, which ldmatrix.trans gives for 16 bits; for 32, words are read one
// by one, from rows that begin eight banks apart. The blocks of the first tap and input channels also add up dy, where the
// bias has a gradient; not where dy has been rounded on its way.
template <typename T, int MODE, bool MASKED>
__global__ void __launch_bounds__(THREADS, 3)
    conv2d_weight_tensor(const T* __restrict__ dy,                // [N, P, Q, K]
                         const T* __restrict__ x,                 // [N, H, W, C]
                         const unsigned char* __restrict__ mask,  // [N, P, Q, (K + 7) / 8]
                         float* __restrict__ parts,               // [J, K, R, S, C / groups]
                         float* __restrict__ bias_parts,          // [J, K], or null
                         CONV2D_SIZES, int J) {
    constexpr int TILE = 64, DEPTH = 16, LENGTH = MODE == BF16 ? 8 : 4, OF_ROW = TILE / LENGTH;  // pieces of a row
    constexpr int LINE = 16 * OF_ROW + (MODE == BF16 ? 16 : 32), PASSES = DEPTH * OF_ROW / THREADS;
    extern __shared__ __align__(16) unsigned char smem[];  // [STAGES][2][DEPTH][LINE]
    const Conv2d geo = CONV2D_GEOMETRY;
    const Roles<false> roles(geo);
    const int outputs = roles.channels, inputs = roles.source_channels, tiles = (inputs + TILE - 1) / TILE;
    const int k0 = blockIdx.x / tiles * TILE, c0 = blockIdx.x % tiles * TILE, thread = threadIdx.x;
    const int group = blockIdx.y / (R * S), tap = blockIdx.y % (R * S), part = blockIdx.z;
    const long long pixels = (long long)N * P * Q, first = pixels * part / J, last = pixels * (part + 1) / J;
    const int steps = (int)((last - first + DEPTH - 1) / DEPTH), channel = thread % OF_ROW * LENGTH;

    const auto fetch = [&](int step) {
        unsigned char* const a = smem + step % STAGES * 2 * DEPTH * LINE + thread % OF_ROW * 16;
        unsigned char* const b = a + DEPTH * LINE;
        for (int i = 0; i < PASSES; i++) {
            const int row = thread / OF_ROW + i * (THREADS / OF_ROW), k = k0 + channel, c = c0 + channel;
            const long long pixel = first + step * DEPTH + row;
            bring<T, MODE, MASKED>(a + row * LINE, dy + pixel * K + group * outputs + k, pixel < last && k < outputs, mask,
                                pixel, group * outputs + k, K, dy);
            long long from = -1;
            if (pixel < last && c < inputs) {
                const Place at(pixel, P, Q, 1);
                from = roles.source(geo, at.n, at.h, at.w, tap / S, tap % S);
            }
            bring<T, MODE, false>(b + row * LINE, x + from * C + group * inputs + c, from >= 0, mask, 0, 0, K, x);
        }
    };

    const int lane = thread % 32, warp = thread / 32, g = lane / 4, t = lane % 4;
    const int m0 = warp / 2 * 32, n0 = warp % 2 * 32;
    const bool adds_bias = LENGTH * sizeof(T) == 16 && bias_parts && tap == 0 && c0 == 0 && thread < TILE;
    float sum[2][4][4] = {}, bias_sum = 0;
    for (int step = 0; step < STAGES - 1; step++) {
        if (step < steps) fetch(step);
        cp_async_commit();
    }
    for (int step = 0; step < steps; step++) {
        cp_async_wait<STAGES - 2>();
        __syncthreads();
        if (step + STAGES - 1 < steps) fetch(step + STAGES - 1);
        cp_async_commit();
        const unsigned char* const a = smem + step % STAGES * 2 * DEPTH * LINE;
        const unsigned char* const b = a + DEPTH * LINE;
        for (int i = 0; adds_bias && i < DEPTH; i++) bias_sum += ((const T*)(a + i * LINE))[thread];
        for (int p = 0; p < DEPTH; p += MODE == BF16 ? 16 : 8) {
            Operand<MODE> of_a[2], of_b[4];
            if (MODE == BF16) {
                unsigned words[4];
                for (int i = 0; i < 2; i++) {
                    const int column = m0 + 16 * i + lane / 8 % 2 * 8;
                    ldmatrix_x4_trans(words, a + (lane / 16 * 8 + lane % 8) * LINE + 2 * column);
                    for (int j = 0; j < 4; j++) of_a[i].set(j, words[j]);
                }
                for (int i = 0; i < 4; i += 2) {
                    const int column = n0 + 8 * i + lane / 16 * 8;
                    ldmatrix_x4_trans(words, b + (lane / 8 % 2 * 8 + lane % 8) * LINE + 2 * column);
                    for (int j = 0; j < 4; j++) of_b[i + j / 2].set(j % 2, words[j]);
                }
            } else {
                for (int j = 0; j < 4; j++)
                    for (int i = 0; i < 2; i++) {
                        const unsigned* const line = (const unsigned*)(a + (p + t + j / 2 * 4) * LINE);
                        of_a[i].set(j, line[m0 + 16 * i + g + j % 2 * 8]);
                    }
                for (int j = 0; j < 2; j++)
                    for (int i = 0; i < 4; i++)
                        of_b[i].set(j, ((const unsigned*)(b + (p + t + 4 * j) * LINE))[n0 + 8 * i + g]);
            }
            for (int i = 0; i < 2; i++)
                for (int j = 0; j < 4; j++) multiply<MODE>(sum[i][j], of_a[i], of_b[j]);
        }
    }
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < 4; j++)
            for (int half = 0; half < 2; half++) {
                const int k = k0 + m0 + 16 * i + 8 * half + g, c = c0 + n0 + 8 * j + 2 * t;
                if (k >= outputs) continue;
                const long long line = ((long long)part * K + group * outputs + k) * R * S + tap;
                store_two(parts + line * inputs + c, sum[i][j][2 * half], sum[i][j][2 * half + 1], inputs - c);
            }
    if (adds_bias && k0 + thread < outputs) bias_parts[(long long)part * K + group * outputs + k0 + thread] = bias_sum;
}
