// What all kernels share: one thread an element, indices, arithmetic that is the same under every compiler.
//
// Arrays are C-contiguous and channels last: [N, H, W, C]; beside every parameter stands its shape. Offsets are 64 bits
// wide, sizes along one axis 32. T is what numbers are stored as: float, double or bfloat16; Sum<T>, what they are added
// up in, is also the type of parameters and of losses.

#pragma once
#include "bfloat16.cuh"

// The number of this thread among all of the grid, where each has one element.
inline __device__ long long element() { return (long long)blockIdx.x * blockDim.x + threadIdx.x; }

// value / by, and the remainder in `rest`; 64-bit division takes several times longer, and is seldom needed.
inline __device__ long long divide(long long value, int by, int& rest) {
    if ((unsigned long long)value <= 0xFFFFFFFFull) {
        const unsigned quotient = (unsigned)value / (unsigned)by;
        rest = (int)((unsigned)value - quotient * (unsigned)by);
        return quotient;
    }
    rest = (int)(value % by);
    return value / by;
}

// Element i of an array [N, H, W, C] as (n, h, w, c).
struct Place {
    int n, h, w, c;
    inline __device__ Place(long long i, int H, int W, int C) {
        i = divide(i, C, c);
        i = divide(i, W, w);
        n = (int)divide(i, H, h);
    }
};

// x y + z, rounded once. Compilers differ in what they contract by themselves.
inline __device__ float multiply_add(float x, float y, float z) { return fmaf(x, y, z); }
inline __device__ double multiply_add(double x, double y, double z) { return fma(x, y, z); }

inline __device__ float exponential(float x) { return expf(x); }
inline __device__ double exponential(double x) { return exp(x); }
inline __device__ float logarithm(float x) { return logf(x); }
inline __device__ double logarithm(double x) { return log(x); }
inline __device__ float square_root(float x) { return sqrtf(x); }
inline __device__ double square_root(double x) { return sqrt(x); }

inline __device__ int smaller(int a, int b) { return a < b ? a : b; }
inline __device__ long long smaller(long long a, long long b) { return a < b ? a : b; }

// Whether `value` takes the place of the maximum before it: `not (<=)` lets NaN win, unless NaN came first.
template <typename T>
inline __device__ bool beats(T value, T best) { return !(value <= best) && best == best; }

// total[i] = the sum of parts[j][i] over j, in order: the second half of every sum that is split over blocks.
template <typename T>
__global__ void sum_parts(const T* __restrict__ parts,  // [J, count]
                          T* __restrict__ total,        // [count]
                          int J, long long count) {
    const long long i = element();
    if (i >= count) return;
    double sum = 0;
    for (int j = 0; j < J; j++) sum += (double)parts[j * count + i];
    total[i] = (T)sum;
}
