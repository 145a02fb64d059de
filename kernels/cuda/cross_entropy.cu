// Softmax cross entropy of every pixel: loss = w[t] (log sum_c exp(x_c - m) - (x_t - m)), m = max_c x_c.
//
// One thread a pixel; its logits lie side by side. An ignored pixel has loss 0 and gradient 0. Derivation:
// minifcn/ops/cross_entropy.py. Bound by memory. The next rung is upsample_cross_entropy.cu, where logits of full size are
// never in memory.

#include "common.cuh"

template <typename T, typename Label>
__global__ void cross_entropy(const T* __restrict__ x,           // [pixels, C]
                              const Label* __restrict__ target,  // [pixels]
                              const T* __restrict__ weight,      // [C]
                              long long ignore_index,
                              T* __restrict__ losses,         // [pixels]
                              T* __restrict__ probabilities,  // [pixels, C]
                              int C, long long pixels) {
    const long long i = element();
    if (i >= pixels) return;
    const T* logits = x + i * C;
    T* p = probabilities + i * C;
    T largest = logits[0];
    for (int c = 1; c < C; c++)
        if (!(logits[c] <= largest)) largest = logits[c];  // a NaN among the logits makes the loss NaN
    T total = 0;
    for (int c = 0; c < C; c++) total += p[c] = exponential(logits[c] - largest);
    for (int c = 0; c < C; c++) p[c] /= total;
    const long long t = (long long)target[i];
    losses[i] = t == ignore_index ? (T)0 : weight[t] * (logarithm(total) - (logits[t] - largest));
}

template <typename T, typename Label>
__global__ void cross_entropy_backward(const T* __restrict__ dy,             // [pixels]
                                       const T* __restrict__ probabilities,  // [pixels, C]
                                       const Label* __restrict__ target,     // [pixels]
                                       const T* __restrict__ weight,         // [C]
                                       long long ignore_index,
                                       T* __restrict__ dx,  // [pixels, C]
                                       int C, long long count) {
    const long long i = element();
    if (i >= count) return;
    int c;
    const long long pixel = divide(i, C, c), t = (long long)target[pixel];
    dx[i] = t == ignore_index ? (T)0 : dy[pixel] * weight[t] * (probabilities[i] - (c == t ? (T)1 : (T)0));
}
