// Bilinear upsampling and its adjoint: one thread an output; on the way back one thread a coarse pixel and channel, which
// adds up the pixels of the two intervals on both sides of it, row by row.
//
// The forward pass is bound by memory. The adjoint reads every dy four times, from the cache.

#include "upsample.cuh"

template <typename T>
__global__ void bilinear_upsample(const T* __restrict__ x,  // [N, H, W, C]
                                  REACHES(Sum<T>),
                                  T* __restrict__ y,  // [N, P, Q, C]
                                  int H, int W, int C, int P, int Q, long long count) {
    const long long i = element();
    if (i >= count) return;
    const Place at(i, P, Q, C);
    const Mixture<T> mixture(x + (long long)at.n * H * W * C, W, C, rows[at.h], columns[at.w], row_weights + 2 * at.h,
                             column_weights + 2 * at.w);
    y[i] = mixture(at.c);
}

// row_starts[k], [H + 2]: the first output row between coarse rows k - 1 and k, and the end; column_starts likewise.
template <typename T>
__global__ void bilinear_upsample_backward(const T* __restrict__ dy,  // [N, P, Q, C]
                                           const Sum<T>* __restrict__ row_weights,
                                           const Sum<T>* __restrict__ column_weights,
                                           const long long* __restrict__ row_starts,
                                           const long long* __restrict__ column_starts,
                                           T* __restrict__ dx,  // [N, H, W, C]
                                           int H, int W, int C, int P, int Q, long long count) {
    const long long i = element();
    if (i >= count) return;
    const Place at(i, H, W, C);
    Sum<T> sum = 0;
    for (long long p = row_starts[at.h]; p < row_starts[at.h + 2]; p++) {
        const Sum<T> by_row = row_weights[2 * p + (p < row_starts[at.h + 1])];  // above it lies interval h, where it is lower
        if (by_row == 0) continue;
        const T* line = dy + ((long long)at.n * P + p) * Q * C + at.c;
        Sum<T> row_sum = 0;
        for (long long q = column_starts[at.w]; q < column_starts[at.w + 2]; q++) {
            const Sum<T> by_column = column_weights[2 * q + (q < column_starts[at.w + 1])];
            if (by_column != 0) row_sum = multiply_add(by_column, line[q * C], row_sum);
        }
        sum = multiply_add(by_row, row_sum, sum);
    }
    dx[i] = sum;
}
