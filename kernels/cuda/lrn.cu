// Local response normalisation across channels: y = x s^-beta, s[c] = k + alpha / size sum of x[j]^2 over the channels j
// around c. Derivation: minifcn/ops/lrn.py.
//
// One thread an element; the neighbours that it reads lie beside it, in lines that the cache holds. The way back computes the
// sums of its neighbours again, which costs less than to store them. Bound by memory for windows as small as AlexNet's.

#include "common.cuh"

inline __device__ float power(float x, float y) { return powf(x, y); }
inline __device__ double power(double x, double y) { return pow(x, y); }

// The sum of squares around channel c of a pixel.
template <typename T>
inline __device__ Sum<T> squares(const T* x, int c, int half, int C) {
    Sum<T> sum = 0;
    for (int j = c < half ? 0 : c - half; j < smaller(c + half + 1, C); j++) sum = multiply_add(x[j], x[j], sum);
    return sum;
}

template <typename T>
__global__ void lrn(const T* __restrict__ x,  // [pixels, C]
                    T* __restrict__ y,        // [pixels, C]
                    int half, Sum<T> share, Sum<T> beta, Sum<T> k, int C, long long count) {
    const long long i = element();
    if (i >= count) return;
    int c;
    const T* const pixel = x + divide(i, C, c) * C;
    y[i] = pixel[c] * power(multiply_add(share, squares(pixel, c, half, C), k), -beta);
}

// dx = dy s^-beta - 2 share beta x sum_j dy_j x_j s_j^(-beta - 1)
template <typename T>
__global__ void lrn_backward(const T* __restrict__ dy,  // [pixels, C]
                             const T* __restrict__ x,   // [pixels, C]
                             T* __restrict__ dx,        // [pixels, C]
                             int half, Sum<T> share, Sum<T> beta, Sum<T> k, int C, long long count) {
    const long long i = element();
    if (i >= count) return;
    int c;
    const long long first = divide(i, C, c) * C;
    const T *const pixel = x + first, *const upstream = dy + first;
    Sum<T> through = 0, own = 0;
    for (int j = c < half ? 0 : c - half; j < smaller(c + half + 1, C); j++) {
        const Sum<T> s = multiply_add(share, squares(pixel, j, half, C), k), scaled = upstream[j] * power(s, -beta);
        through = multiply_add(scaled, pixel[j] / s, through);
        if (j == c) own = scaled;
    }
    dx[i] = own - 2 * share * beta * pixel[c] * through;
}
