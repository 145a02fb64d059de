// SGD and Adam in place; the rules stand in kernels/reference/optimizers.py. Bound by memory: one pass over weights,
// gradient and state.

#include "common.cuh"

// inner, outer: lr and 1 where the rate stands inside the velocity (Caffe's form), else 1 and lr.
template <typename T>
__global__ void sgd(T* __restrict__ w, const T* __restrict__ g, T* __restrict__ velocity, T momentum, T weight_decay,
                    T inner, T outer, long long count) {
    const long long i = element();
    if (i >= count) return;
    velocity[i] = momentum * velocity[i] + inner * (g[i] + weight_decay * w[i]);
    w[i] -= outer * velocity[i];
}

// rest1, rest2: 1 - beta; scale1, scale2: 1 - beta^step; decay: inside the gradient, decay_rate: beside it (AdamW).
template <typename T>
__global__ void adam(T* __restrict__ w, const T* __restrict__ g, T* __restrict__ mean, T* __restrict__ square, T lr,
                     T beta1, T beta2, T rest1, T rest2, T scale1, T scale2, T eps, T decay, T decay_rate,
                     long long count) {
    const long long i = element();
    if (i >= count) return;
    const T gradient = g[i] + decay * w[i];
    mean[i] = beta1 * mean[i] + rest1 * gradient;
    square[i] = beta2 * square[i] + rest2 * gradient * gradient;
    const T step = lr * (mean[i] / scale1) / (square_root(square[i] / scale2) + eps);
    w[i] = w[i] - decay_rate * w[i] - step;
}
