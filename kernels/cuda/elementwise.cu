// ReLU, sum and multiple, element by element, in whatever memory order the arrays share.
//
// y = max(x, 0), NaN stays NaN; dx = dy where y is not <= 0; x + y; factor x.
// Bound by memory: one thread an element reads and writes whole lines. There is no further rung; what is gained is gained
// by fusing these into their neighbours (conv2d.cu).

#include "common.cuh"

template <typename T>
__global__ void relu(const T* __restrict__ x, T* __restrict__ y, long long count) {
    const long long i = element();
    if (i < count) y[i] = x[i] <= 0 ? (T)0 : x[i];
}

template <typename T>
__global__ void relu_backward(const T* __restrict__ dy, const T* __restrict__ y, T* __restrict__ dx, long long count) {
    const long long i = element();
    if (i < count) dx[i] = y[i] <= 0 ? (T)0 : dy[i];
}

template <typename T>
__global__ void add(const T* __restrict__ x, const T* __restrict__ y, T* __restrict__ total, long long count) {
    const long long i = element();
    if (i < count) total[i] = x[i] + y[i];
}

template <typename T>
__global__ void scale(const T* __restrict__ x, Sum<T> factor, T* __restrict__ y, long long count) {
    const long long i = element();
    if (i < count) y[i] = x[i] * factor;
}
