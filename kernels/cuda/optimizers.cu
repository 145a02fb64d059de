// SGD and Adam in place; the rules stand in kernels/reference/optimizers.py. Bound by memory: one pass over weights,
// gradient and state.
//
// One launch updates any number of parameters, as most are too small to fill a GPU. Each is a row of a table
// (optimizers.py lays it out), and is cut into chunks of `chunk` elements: one block a chunk.

#include "common.cuh"

// The row of the parameter that this block works on: the last one whose first block is not after it.
template <typename Row>
inline __device__ const Row& row_of_block(const Row* rows, int count) {
    int low = 0, high = count - 1;
    while (low < high) {
        const int middle = (low + high + 1) / 2;
        if (rows[middle].first_block <= (long long)blockIdx.x)
            low = middle;
        else
            high = middle - 1;
    }
    return rows[low];
}

// Calls update(i) for every element i of this block's chunk.
template <typename Row, typename Update>
inline __device__ void each_of_chunk(const Row& row, int chunk, Update update) {
    const long long start = ((long long)blockIdx.x - row.first_block) * chunk, end = smaller(start + chunk, row.count);
    for (long long i = start + threadIdx.x; i < end; i += blockDim.x) update(i);
}

// inner, outer: lr and 1 where the rate stands inside the velocity (Caffe's form), else 1 and lr.
template <typename T>
struct SgdRow {
    T *w, *velocity;
    const T* g;
    long long first_block, count;
    T momentum, weight_decay, inner, outer;
};

template <typename T>
__global__ void sgd(const SgdRow<T>* __restrict__ rows, int count, int chunk) {
    const SgdRow<T> row = row_of_block(rows, count);
    T *__restrict__ const w = row.w, *__restrict__ const velocity = row.velocity;
    const T* __restrict__ const g = row.g;
    each_of_chunk(row, chunk, [&](long long i) {
        velocity[i] = row.momentum * velocity[i] + row.inner * (g[i] + row.weight_decay * w[i]);
        w[i] -= row.outer * velocity[i];
    });
}

// rest1, rest2: 1 - beta; scale1, scale2: 1 - beta^step; decay: inside the gradient, decay_rate: beside it (AdamW).
template <typename T>
struct AdamRow {
    T *w, *mean, *square;
    const T* g;
    long long first_block, count;
    T lr, beta1, beta2, rest1, rest2, scale1, scale2, eps, decay, decay_rate;
};

template <typename T>
__global__ void adam(const AdamRow<T>* __restrict__ rows, int count, int chunk) {
    const AdamRow<T> row = row_of_block(rows, count);
    T *__restrict__ const w = row.w, *__restrict__ const mean = row.mean, *__restrict__ const square = row.square;
    const T* __restrict__ const g = row.g;
    each_of_chunk(row, chunk, [&](long long i) {
        const T gradient = g[i] + row.decay * w[i];
        mean[i] = row.beta1 * mean[i] + row.rest1 * gradient;
        square[i] = row.beta2 * square[i] + row.rest2 * gradient * gradient;
        const T step = row.lr * (mean[i] / row.scale1) / (square_root(square[i] / row.scale2) + row.eps);
        w[i] = w[i] - row.decay_rate * w[i] - step;
    });
}
