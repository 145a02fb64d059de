// Convolution, rung "tiled": implicit GEMM through shared memory. A block computes 64 target pixels x 64 channels; for every
// tap and every 16 source channels it loads two tiles once, and each of its 256 threads makes 4 x 4 sums of them: every
// number that is loaded is used 64 times. Works for any channels. conv2d.cu has the ladder.

#include "conv2d.cuh"

static const int TILE = 64, DEPTH = 16, THREADS = 256;  // 16 x 16 threads
static const int PADDED = TILE + 1;                     // so that a column of a tile lies in many banks

template <typename T, bool BACKWARD, bool MASKED, bool RELU>
__global__ void __launch_bounds__(THREADS, 2)
    conv2d_tiled(const T* __restrict__ source,            // [N, source height, source width, source channels]
                 const T* __restrict__ w,                 // [channels, R, S, source channels of a group]
                 const Sum<T>* __restrict__ bias,         // [channels], or null
                 const unsigned char* __restrict__ mask,  // of the source
                 T* __restrict__ target,                  // [N, height, width, channels]
                 unsigned char* __restrict__ bits,        // of the target
                 CONV2D_SIZES) {
    __shared__ Sum<T> a[DEPTH][PADDED], b[DEPTH][PADDED];
    const Conv2d geo = CONV2D_GEOMETRY;
    const Roles<BACKWARD> roles(geo);
    const int depth = roles.source_channels, tiles = (roles.channels + TILE - 1) / TILE;
    const int group = blockIdx.y / tiles, channel0 = blockIdx.y % tiles * TILE, thread = threadIdx.x;
    const long long pixels = (long long)N * roles.height * roles.width, pixel0 = (long long)blockIdx.x * TILE;
    const int column = thread % DEPTH, row = thread / DEPTH;  // of the tiles, while loading
    const int m0 = thread / 16 * 4, n0 = thread % 16 * 4;     // of the sums
    Four<Sum<T>> sum[4] = {};

    for (int tap = 0; tap < R * S; tap++) {
        const int r = tap / S, s = tap % S;
        long long from[TILE / 16];  // the source pixels of the four rows that this thread loads
        for (int i = 0; i < TILE / 16; i++) {
            const long long pixel = pixel0 + row + 16 * i;
            from[i] = -1;
            if (pixel >= pixels) continue;
            const Place at(pixel, roles.height, roles.width, 1);
            from[i] = roles.source(geo, at.n, at.h, at.w, r, s);
        }
        for (int d0 = 0; d0 < depth; d0 += DEPTH) {
            const int d = d0 + column;
            for (int i = 0; i < TILE / 16; i++) {
                const int m = row + 16 * i, n = channel0 + m, at = group * depth + d;
                const bool reads = from[i] >= 0 && d < depth && (!MASKED || passes(mask, from[i], at, K));
                a[column][m] = reads ? source[from[i] * depth * groups + at] : (T)0;
                const long long weights = ((long long)group * roles.channels + n) * R * S + tap;
                b[column][m] = n < roles.channels && d < depth ? w[weights * depth + d] : (T)0;
            }
            __syncthreads();
            for (int k = 0; k < DEPTH; k++)
                for (int i = 0; i < 4; i++)
                    for (int j = 0; j < 4; j++)
                        sum[i].at[j] = multiply_add(a[k][m0 + i], b[k][n0 + j], sum[i].at[j]);
            __syncthreads();
        }
    }
    for (int i = 0; i < 4; i++) {
        const long long pixel = pixel0 + m0 + i;
        finish<T, RELU>(sum[i], bias, target, bits, pixel < pixels, pixel, channel0 + n0, roles.channels, group, groups);
    }
}

// dw: 64 output channels x 64 input channels of one tap, over part `blockIdx.z` of all output pixels, 16 at a time. The blocks
// of the first tap and input channels also add up dy, where the bias has a gradient.
template <typename T, bool MASKED>
__global__ void __launch_bounds__(THREADS, 2)
    conv2d_weight_tiled(const T* __restrict__ dy,                // [N, P, Q, K]
                        const T* __restrict__ x,                 // [N, H, W, C]
                        const unsigned char* __restrict__ mask,  // [N, P, Q, (K + 7) / 8]
                        Sum<T>* __restrict__ parts,              // [J, K, R, S, C / groups]
                        Sum<T>* __restrict__ bias_parts,         // [J, K], or null
                        CONV2D_SIZES, int J) {
    __shared__ Sum<T> a[DEPTH][PADDED], b[DEPTH][PADDED];
    const Conv2d geo = CONV2D_GEOMETRY;
    const Roles<false> roles(geo);
    const int outputs = roles.channels, inputs = roles.source_channels, tiles = (inputs + TILE - 1) / TILE;
    const int k0 = blockIdx.x / tiles * TILE, c0 = blockIdx.x % tiles * TILE, thread = threadIdx.x;
    const int group = blockIdx.y / (R * S), tap = blockIdx.y % (R * S), part = blockIdx.z;
    const long long pixels = (long long)N * P * Q, last = pixels * (part + 1) / J;
    const int column = thread % TILE, row = thread / TILE;
    const int m0 = thread / 16 * 4, n0 = thread % 16 * 4;
    const bool adds_bias = bias_parts && tap == 0 && c0 == 0 && thread < TILE;
    Sum<T> sum[4][4] = {}, bias_sum = 0;

    for (long long first = pixels * part / J; first < last; first += DEPTH) {
        for (int i = row; i < DEPTH; i += THREADS / TILE) {
            const long long pixel = first + i;
            const int k = group * outputs + k0 + column, c = c0 + column;
            a[i][column] = b[i][column] = 0;
            if (pixel >= last) continue;
            if (k0 + column < outputs && (!MASKED || passes(mask, pixel, k, K))) a[i][column] = dy[pixel * K + k];
            const Place at(pixel, P, Q, 1);
            const long long from = roles.source(geo, at.n, at.h, at.w, tap / S, tap % S);
            if (c < inputs && from >= 0) b[i][column] = x[from * C + group * inputs + c];
        }
        __syncthreads();
        for (int i = 0; i < DEPTH; i++)
            for (int m = 0; m < 4; m++)
                for (int n = 0; n < 4; n++) sum[m][n] = multiply_add(a[i][m0 + m], b[i][n0 + n], sum[m][n]);
        for (int i = 0; adds_bias && i < DEPTH; i++) bias_sum += a[i][thread];
        __syncthreads();
    }
    for (int m = 0; m < 4; m++)
        for (int n = 0; n < 4; n++) {
            const int k = k0 + m0 + m, c = c0 + n0 + n;
            if (k >= outputs || c >= inputs) continue;
            const long long line = ((long long)part * K + group * outputs + k) * R * S + tap;
            parts[line * inputs + c] = sum[m][n];
        }
    if (adds_bias && k0 + thread < outputs) bias_parts[(long long)part * K + group * outputs + k0 + thread] = bias_sum;
}
