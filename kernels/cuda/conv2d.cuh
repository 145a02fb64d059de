// Sizes of a convolution, and which pixel a tap meets. All rungs of conv2d.cu are built on it.
//
// Forward pass and gradient of the input are one problem: every pixel of a *target* map gathers, for each tap (r, s) of the
// window, one pixel of a *source* map or none, and multiplies its channels with the tap's weights.
//
//     forward         target y [N, P, Q, K], source x [N, H, W, C]:   h = p stride - pad + r dilation
//     backward input  target dx [N, H, W, C], source dy [N, P, Q, K]: p = (h + pad - r dilation) / stride, if it divides
//
// Weights lie as [K, R, S, C / groups] for both; groups are independent problems.

#pragma once
#include "common.cuh"

// As `kernels/geometry.py` computes them; C and K count all groups.
#define CONV2D_SIZES                                                                                              \
    int N, int C, int H, int W, int K, int R, int S, int P, int Q, int stride_h, int stride_w, int pad_h, int pad_w, \
        int dilation_h, int dilation_w, int groups
#define CONV2D_GEOMETRY \
    Conv2d { N, C, H, W, K, R, S, P, Q, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, groups }

struct Conv2d {
    int N, C, H, W, K, R, S, P, Q, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, groups;
};

// Where tap `tap` of place `at` of the target meets the source, along one axis of `size` pixels; -1: nowhere.
template <bool BACKWARD>
inline __device__ int gather(int at, int tap, int size, int stride, int pad, int dilation) {
    if (!BACKWARD) {
        const int place = at * stride - pad + tap * dilation;
        return place < size ? place : -1;  // below 0 it is negative already
    }
    const int start = at + pad - tap * dilation;
    if (start < 0 || start % stride != 0) return -1;
    return start / stride < size ? start / stride : -1;
}

// The two roles that input and output of the convolution play.
template <bool BACKWARD>
struct Roles {
    int height, width, channels;                       // of the target; channels of one group
    int source_height, source_width, source_channels;  // channels of one group
    int groups;
    inline __device__ Roles(const Conv2d& g)
        : height(BACKWARD ? g.H : g.P), width(BACKWARD ? g.W : g.Q), channels((BACKWARD ? g.C : g.K) / g.groups),
          source_height(BACKWARD ? g.P : g.H), source_width(BACKWARD ? g.Q : g.W),
          source_channels((BACKWARD ? g.K : g.C) / g.groups), groups(g.groups) {}

    // The row and column of the source that taps r and s of target pixel (u, v) meet; -1: none.
    inline __device__ int row(const Conv2d& g, int u, int r) const {
        return gather<BACKWARD>(u, r, source_height, g.stride_h, g.pad_h, g.dilation_h);
    }
    inline __device__ int column(const Conv2d& g, int v, int s) const {
        return gather<BACKWARD>(v, s, source_width, g.stride_w, g.pad_w, g.dilation_w);
    }

    // A source pixel, counted over all images; -1 where row or column is none.
    inline __device__ long long pixel(int n, int row, int column) const {
        return row < 0 || column < 0 ? -1 : ((long long)n * source_height + row) * source_width + column;
    }
    inline __device__ long long source(const Conv2d& g, int n, int u, int v, int r, int s) const {
        return pixel(n, row(g, u, r), column(g, v, s));
    }
};

// The bit of channel k of a pixel: mask [pixels, (K + 7) / 8], set where ReLU let it pass.
inline __device__ bool passes(const unsigned char* mask, long long pixel, int k, int K) {
    return mask[pixel * ((K + 7) / 8) + k / 8] >> (k % 8) & 1;
}

// --- implicit GEMM: what the tiled rungs share --------------------------------------------------------------------------

// As a product of matrices, a group's convolution is target[m, n] = sum_d A[m, d] B[n, d] + bias[n]: m counts target
// pixels, n the target's channels, d = (r, s, c) the taps and the source's channels. A is never formed: for one tap, a row
// of it is a source pixel. B is w [channels, R, S, source channels], turned (`transpose_weights`) on the way back.

// Four neighbouring numbers, read and written in pieces of up to 16 bytes.
template <typename T>
struct __align__(4 * sizeof(T) < 16 ? 4 * sizeof(T) : 16) Four {
    T at[4];
};

// Ends four neighbouring channels of a target pixel, which exists if `row`: bias, and with RELU the maximum with 0 and its
// bits. Lanes 2 i and 2 i + 1 of a warp hold the eight channels of a byte; all lanes of it call this at once.
template <typename T, bool RELU>
inline __device__ void finish(Four<Sum<T>> value, const Sum<T>* bias, T* target, unsigned char* bits, bool row, long long pixel,
                              int channel, int channels, int group, int groups) {
    const int total = channels * groups, first = group * channels + channel;
    const int left = row ? channels - channel : 0;  // of the four, those that exist
    unsigned nibble = 0;
    for (int j = 0; j < 4; j++) {
        if (j >= left) break;
        if (bias) value.at[j] += bias[first + j];
        if (!RELU) continue;
        if (value.at[j] <= 0)  // NaN passes
            value.at[j] = 0;
        else
            nibble |= 1u << j;
    }
    T* const to = target + pixel * total + first;
    Four<T> stored;
    for (int j = 0; j < 4; j++) stored.at[j] = value.at[j];
    if (left >= 4 && total % 4 == 0 && first % 4 == 0)
        *(Four<T>*)to = stored;
    else
        for (int j = 0; j < 4; j++)
            if (j < left) to[j] = stored.at[j];
    if (RELU) {
        const unsigned upper = __shfl_down_sync(0xFFFFFFFFu, nibble, 1);
        if (threadIdx.x % 2 == 0 && left > 0)
            bits[pixel * ((total + 7) / 8) + first / 8] = (unsigned char)(nibble | upper << 4);
    }
}
