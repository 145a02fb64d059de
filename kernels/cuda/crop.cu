// Crop, its adjoint, and crop-and-sum: y[n,p,q,c] = x[n, p + top, q + left, c]. Bound by memory, one thread an output.

#include "common.cuh"

template <typename T>
__global__ void crop(const T* __restrict__ x,  // [N, H, W, C]
                     T* __restrict__ y,        // [N, P, Q, C]
                     int H, int W, int C, int P, int Q, int top, int left, long long count) {
    const long long i = element();
    if (i >= count) return;
    const Place y_at(i, P, Q, C);
    y[i] = x[(((long long)y_at.n * H + y_at.h + top) * W + y_at.w + left) * C + y_at.c];
}

template <typename T>
__global__ void pad(const T* __restrict__ dy,  // [N, P, Q, C]
                    T* __restrict__ dx,        // [N, H, W, C]
                    int H, int W, int C, int P, int Q, int top, int left, long long count) {
    const long long i = element();
    if (i >= count) return;
    const Place at(i, H, W, C);
    const int p = at.h - top, q = at.w - left;
    const bool inside = p >= 0 && p < P && q >= 0 && q < Q;
    dx[i] = inside ? dy[(((long long)at.n * P + p) * Q + q) * C + at.c] : (T)0;
}

template <typename T>
__global__ void crop_sum(const T* __restrict__ x,     // [N, P, Q, C]
                         const T* __restrict__ skip,  // [N, H, W, C]
                         T* __restrict__ y,           // [N, P, Q, C]
                         int H, int W, int C, int P, int Q, int top, int left, long long count) {
    const long long i = element();
    if (i >= count) return;
    const Place at(i, P, Q, C);
    y[i] = x[i] + skip[(((long long)at.n * H + at.h + top) * W + at.w + left) * C + at.c];
}
