// Two-dimensional convolution: forward, gradients of input, weight and bias, and the same fused with ReLU. Derivation:
// minifcn/ops/conv2d.py; conv2d.cuh says how the forward pass and the input's gradient are one problem.
//
//     y[n,p,q,k] = b[k] + sum_{r,s,c} w[k,r,s,c] x[n,h,w,c]         dw[k,r,s,c] = sum_{n,p,q} dy[n,p,q,k] x[n,h,w,c]
//
// The ladder (`ladder.py` chooses, `settings.convolution` overrides):
//   naive    the definition: one thread an output                                              here
//   tiled    implicit GEMM: tiles in shared memory, 4 x 4 sums a thread                         conv2d_tiled.cu
//   blocked  8 x 8 sums a thread, pieces of 16 bytes, two tiles in turn                         conv2d_blocked.cu
//   tensor   tensor cores (bfloat16, TF32, 3xTF32), tiles copied asynchronously, three in turn  conv2d_tensor.cu
//
// Fused with ReLU, a tiled rung ends with bias, maximum and mask, reads dy through the mask on the way back, and sums the
// bias's gradient from the tiles of dy that the weight's gradient needs.
//
// Every sum runs in one order. Where a sum is split over blocks, the number of parts depends on the sizes alone, and
// `sum_parts` adds them.

#include "conv2d.cuh"

// MASKED: the source is dy, and counts only where ReLU let it pass.
template <typename T, bool BACKWARD, bool MASKED>
__global__ void conv2d_naive(const T* __restrict__ source,            // [N, source height, source width, channels]
                             const T* __restrict__ w,                 // [K, R, S, C / groups]
                             const Sum<T>* __restrict__ bias,         // [channels of the target], or null
                             const unsigned char* __restrict__ mask,  // [pixels of dy, (K + 7) / 8]
                             T* __restrict__ target,                  // [N, height, width, channels]
                             CONV2D_SIZES, long long count) {
    const long long i = element();
    if (i >= count) return;
    const Conv2d geo = CONV2D_GEOMETRY;
    const Roles<BACKWARD> roles(geo);
    const Place at(i, roles.height, roles.width, roles.channels * groups);
    const int group = at.c / roles.channels, depth = roles.source_channels, first = group * depth;
    const long long by_k = (long long)R * S * (C / groups);  // from one output channel's weights to the next one's
    Sum<T> sum = 0;
    for (int r = 0; r < R; r++) {
        const int row = roles.row(geo, at.h, r);
        if (row < 0) continue;
        for (int s = 0; s < S; s++) {
            const int column = roles.column(geo, at.w, s);
            if (column < 0) continue;
            const long long pixel = roles.pixel(at.n, row, column);
            const T* from = source + pixel * depth * groups + first;
            const T* weights = w + ((long long)r * S + s) * (C / groups);
            weights += BACKWARD ? first * by_k + at.c % roles.channels : at.c * by_k;
            for (int d = 0; d < depth; d++)
                if (!MASKED || passes(mask, pixel, first + d, K))
                    sum = multiply_add(from[d], weights[BACKWARD ? d * by_k : d], sum);
        }
    }
    target[i] = bias ? sum + bias[at.c] : sum;
}

// Thread (part, weight): that weight's sum over the part's share of all output pixels.
template <typename T, bool MASKED>
__global__ void conv2d_weight_naive(const T* __restrict__ dy,                // [N, P, Q, K]
                                    const T* __restrict__ x,                 // [N, H, W, C]
                                    const unsigned char* __restrict__ mask,  // [N, P, Q, (K + 7) / 8]
                                    Sum<T>* __restrict__ parts,              // [J, K, R, S, C / groups]
                                    CONV2D_SIZES, int J, long long count) {
    const long long i = element();
    if (i >= count) return;
    const Conv2d geo = CONV2D_GEOMETRY;
    const Roles<false> roles(geo);
    const Place at(i, R, S, C / groups);  // n counts output channels, and those of all parts
    const int part = at.n / K, k = at.n % K, group = k / roles.channels;
    const long long pixels = (long long)N * P * Q, last = pixels * (part + 1) / J;
    Sum<T> sum = 0;
    for (long long pixel = pixels * part / J; pixel < last; pixel++) {
        const Place to(pixel, P, Q, 1);
        const long long from = roles.source(geo, to.n, to.h, to.w, at.h, at.w);
        if (from < 0 || (MASKED && !passes(mask, pixel, k, K))) continue;
        sum = multiply_add(dy[pixel * K + k], x[from * C + group * (C / groups) + at.c], sum);
    }
    parts[i] = sum;
}

// Thread (part, k): the sum of channel k over the part's share of all pixels, in the order in which the tiled rungs add it up
// beside the weight's gradient: the bits are the same.
template <typename T, bool MASKED>
__global__ void conv2d_bias(const T* __restrict__ dy,                // [pixels, K]
                            const unsigned char* __restrict__ mask,  // [pixels, (K + 7) / 8]
                            Sum<T>* __restrict__ parts,              // [J, K]
                            int K, int J, long long pixels, long long count) {
    const long long i = element();
    if (i >= count) return;
    int k;
    const long long part = divide(i, K, k), last = pixels * (part + 1) / J;
    Sum<T> sum = 0;
    for (long long pixel = pixels * part / J; pixel < last; pixel++)
        if (!MASKED || passes(mask, pixel, k, K)) sum += dy[pixel * K + k];
    parts[i] = sum;
}

// ReLU in place, and its mask: thread (pixel, byte) has eight channels.
template <typename T>
__global__ void relu_mask(T* __restrict__ y,                 // [pixels, K]
                          unsigned char* __restrict__ mask,  // [pixels, (K + 7) / 8]
                          int K, long long count) {
    const long long i = element();
    if (i >= count) return;
    int byte;
    const long long pixel = divide(i, (K + 7) / 8, byte);
    unsigned bits = 0;
    for (int k = 8 * byte; k < smaller(8 * byte + 8, K); k++) {
        T& value = y[pixel * K + k];
        if (value <= 0)  // NaN passes
            value = 0;
        else
            bits |= 1u << (k % 8);
    }
    mask[i] = (unsigned char)bits;
}

// The weights as the tiled rungs want them on the way back: [C, R, S, K / groups] of [K, R, S, C / groups].
template <typename T>
__global__ void transpose_weights(const Sum<T>* __restrict__ w, T* __restrict__ turned, int K, int R, int S, int depth,
                                  int groups, long long count) {
    const long long i = element();
    if (i >= count) return;
    const int of_group = K / groups;
    const Place at(i, R, S, of_group);  // n counts input channels of all groups
    const int group = at.n / depth, c = at.n % depth;
    turned[i] = w[((((long long)group * of_group + at.c) * R + at.h) * S + at.w) * depth + c];
}
