// Bilinear upsampling as a mixture of four coarse pixels, from the tables of `kernels/tables.py`.
//
// Pixel (p, q) of the output lies between coarse rows k - 1, k and columns l - 1, l with k = rows[p], l = columns[q]:
// z = a (c x[k-1,l-1] + d x[k-1,l]) + b (c x[k,l-1] + d x[k,l]), (a, b) = row_weights[p], (c, d) = column_weights[q].
// A weight is 0 where x has no such pixel or the filter ends before it: then nothing is read there, so that no NaN or
// infinity comes from it.

#pragma once
#include "common.cuh"

#define REACHES(T)                                                                                    \
    const long long *__restrict__ rows, const T *__restrict__ row_weights, /* [P], [P, 2] */          \
        const long long *__restrict__ columns, const T *__restrict__ column_weights /* [Q], [Q, 2] */

template <typename T>
struct Mixture {
    Sum<T> a, b, c, d;
    const T* here;           // coarse pixel (k, l), channel 0, which need not exist
    long long row, column;  // from there to the next row and column

    // of x [H, W, C], one image
    inline __device__ Mixture(const T* x, int W, int C, long long k, long long l, const Sum<T>* ab,
                              const Sum<T>* cd)
        : a(ab[0]), b(ab[1]), c(cd[0]), d(cd[1]), here(x + (k * W + l) * C), row((long long)W * C), column(C) {}

    inline __device__ Sum<T> along(const T* right) const {
        if (c == 0) return d * right[0];
        if (d == 0) return c * right[-column];
        return multiply_add(d, right[0], c * right[-column]);
    }

    inline __device__ Sum<T> operator()(int channel) const {
        if (a == 0) return b * along(here + channel);
        if (b == 0) return a * along(here + channel - row);
        return multiply_add(b, along(here + channel), a * along(here + channel - row));
    }
};
