// kernel: conv2d_forward
// entry:  four_channels<T>
// grid:   ceil(N * P * Q * ceil(K / 4) / 128)
// block:  128
//
// One thread computes four neighbouring channels of one output pixel: every x that it reads is used four times.

#include "conv2d.cuh"

template <typename T>
__global__ void four_channels(const T* __restrict__ x,     // [N, H, W, C]
                              const T* __restrict__ w,     // [K, R, S, C / groups]
                              const T* __restrict__ bias,  // [K]
                              T* __restrict__ y,           // [N, P, Q, K]
                              CONV2D_SIZES) {
    const int quads = (K + 3) / 4, depth = C / groups;
    const long long i = element();  // of all threads
    if (i >= (long long)N * P * Q * quads) return;
    const Place at(i, P, Q, quads);
    const int k0 = 4 * at.c, count = smaller(4, K - k0);
    T sum[4] = {};
    for (int r = 0; r < R; r++)
        for (int s = 0; s < S; s++) {
            const int h = at.h * stride_h - pad_h + r * dilation_h, v = at.w * stride_w - pad_w + s * dilation_w;
            if (h < 0 || h >= H || v < 0 || v >= W) continue;  // zeros outside the image
            const T* const pixel = x + (((long long)at.n * H + h) * W + v) * C;
            for (int c = 0; c < depth; c++)
                for (int j = 0; j < count; j++) {
                    const int k = k0 + j, group = k / (K / groups);
                    sum[j] = multiply_add(pixel[group * depth + c], w[((k * R + r) * S + s) * depth + c], sum[j]);
                }
        }
    for (int j = 0; j < count; j++) y[(((long long)at.n * P + at.h) * Q + at.w) * K + k0 + j] = sum[j] + bias[k0 + j];
}
