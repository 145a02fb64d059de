// Max and average pooling: one thread an output, and on the way back one thread an input, which asks the few windows
// that hold it. Nothing is added atomically, so the sums run in one order.
//
// A tap (r, s) of window (p, q) meets the input at h = p stride - pad + r dilation, w likewise. The first maximum in
// row-major order wins, NaN wins over numbers, padding never wins. Bound by memory.

#include "common.cuh"

#define POOL2D_SIZES                                                                                            \
    int H, int W, int C, int P, int Q, int R, int S, int stride_h, int stride_w, int pad_h, int pad_w, int dilation_h, \
        int dilation_w
#define POOL2D_PASSED H, W, C, P, Q, R, S, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w

// The tap r S + s that wins the window at (p, q) of image n in channel c, and its value in `best`.
template <typename T>
inline __device__ int winner_of(const T* __restrict__ x, T& best, int n, int p, int q, int c, POOL2D_SIZES) {
    const int top = p * stride_h - pad_h, left = q * stride_w - pad_w;
    int winner = -1;
    best = 0;
    for (int r = 0; r < R; r++) {
        const int h = top + r * dilation_h;
        if (h < 0 || h >= H) continue;
        for (int s = 0; s < S; s++) {
            const int w = left + s * dilation_w;
            if (w < 0 || w >= W) continue;
            const T value = x[(((long long)n * H + h) * W + w) * C + c];
            if (winner < 0 || beats(value, best)) {
                best = value;
                winner = r * S + s;
            }
        }
    }
    return winner;
}

template <typename T>
__global__ void max_pool2d(const T* __restrict__ x,             // [N, H, W, C]
                           T* __restrict__ y,                   // [N, P, Q, C]
                           unsigned char* __restrict__ argmax,  // [N, P, Q, C]
                           POOL2D_SIZES, long long count) {
    const long long i = element();
    if (i >= count) return;
    const Place at(i, P, Q, C);
    T best;
    argmax[i] = (unsigned char)winner_of(x, best, at.n, at.h, at.w, at.c, POOL2D_PASSED);
    y[i] = best;
}

// The same for windows of at most four taps, whose winner is two bits: a thread has a byte, four channels.
template <typename T>
__global__ void max_pool2d_packed(const T* __restrict__ x,              // [N, H, W, C]
                                  T* __restrict__ y,                    // [N, P, Q, C]
                                  unsigned char* __restrict__ winners,  // [N, P, Q, ceil(C / 4)]
                                  POOL2D_SIZES, long long count) {
    const long long i = element();
    if (i >= count) return;
    const int bytes = (C + 3) / 4;
    const Place at(i, P, Q, bytes);
    const long long window = ((long long)at.n * P + at.h) * Q + at.w;
    unsigned bits = 0;
    for (int k = 0; k < 4 && 4 * at.c + k < C; k++) {
        const int c = 4 * at.c + k;
        T best;
        bits |= (unsigned)winner_of(x, best, at.n, at.h, at.w, c, POOL2D_PASSED) << 2 * k;
        y[window * C + c] = best;
    }
    winners[i] = (unsigned char)bits;
}

// Windows of 2 x 2 after ReLU: a thread has one, and eight channels. Of each pixel's bits those stay that won.
template <typename T>
__global__ void max_pool2d_masked(const T* __restrict__ x,            // [N, H, W, C]
                                  T* __restrict__ y,                  // [N, P, Q, C]
                                  unsigned char* __restrict__ mask,   // [N, H, W, ceil(C / 8)]
                                  POOL2D_SIZES, long long count) {
    const long long i = element();
    if (i >= count) return;
    const int bytes = (C + 7) / 8;
    const Place at(i, (H + 1) / 2, (W + 1) / 2, bytes);
    unsigned won = 0;  // a byte for each tap; none where the pixels are in no window
    if (at.h < P && at.w < Q) {
        const long long window = ((long long)at.n * P + at.h) * Q + at.w;
        for (int k = 0; k < 8 && 8 * at.c + k < C; k++) {
            const int c = 8 * at.c + k;
            T best;
            won |= 1u << (8 * winner_of(x, best, at.n, at.h, at.w, c, POOL2D_PASSED) + k);
            y[window * C + c] = best;
        }
    }
    for (int tap = 0; tap < 4; tap++) {
        const int h = 2 * at.h + tap / 2, w = 2 * at.w + tap % 2;
        if (h < H && w < W) mask[(((long long)at.n * H + h) * W + w) * bytes + at.c] &= (unsigned char)(won >> 8 * tap);
    }
}

// What dy has for the 2 x 2 window of each pixel; that of a neighbour for those in no window.
template <typename T>
__global__ void spread_windows(const T* __restrict__ dy,  // [N, P, Q, C]
                               T* __restrict__ dx,        // [N, H, W, C]
                               int H, int W, int C, int P, int Q, long long count) {
    const long long i = element();
    if (i >= count) return;
    const Place at(i, H, W, C);
    const int p = smaller(at.h / 2, P - 1), q = smaller(at.w / 2, Q - 1);
    dx[i] = dy[(((long long)at.n * P + p) * Q + q) * C + at.c];
}

// The window along one axis whose tap lies at `place` of the input; -1 where there is none.
inline __device__ int window_of(int place, int tap, int stride, int pad, int dilation, int windows) {
    const int start = place + pad - tap * dilation;
    if (start < 0 || start % stride != 0) return -1;
    return start / stride < windows ? start / stride : -1;
}

// PACKED: two bits a window, as `max_pool2d_packed` writes them.
template <typename T, bool PACKED>
__global__ void max_pool2d_backward(const T* __restrict__ dy,                  // [N, P, Q, C]
                                    const unsigned char* __restrict__ argmax,  // [N, P, Q, C or ceil(C / 4)]
                                    T* __restrict__ dx,                        // [N, H, W, C]
                                    POOL2D_SIZES, long long count) {
    const long long i = element();
    if (i >= count) return;
    const Place at(i, H, W, C);
    Sum<T> sum = 0;
    for (int r = R - 1; r >= 0; r--) {  // the last tap meets the first window
        const int p = window_of(at.h, r, stride_h, pad_h, dilation_h, P);
        if (p < 0) continue;
        for (int s = S - 1; s >= 0; s--) {
            const int q = window_of(at.w, s, stride_w, pad_w, dilation_w, Q);
            if (q < 0) continue;
            const long long window = ((long long)at.n * P + p) * Q + q;
            const int winner = PACKED ? argmax[window * ((C + 3) / 4) + at.c / 4] >> 2 * (at.c % 4) & 3
                                      : argmax[window * C + at.c];
            if (winner == r * S + s) sum += dy[window * C + at.c];
        }
    }
    dx[i] = sum;
}

template <typename T>
__global__ void avg_pool2d(const T* __restrict__ x,              // [N, H, W, C]
                           const Sum<T>* __restrict__ row_counts, // [P]: rows that a window counts
                           const Sum<T>* __restrict__ column_counts, // [Q]
                           T* __restrict__ y,                    // [N, P, Q, C]
                           POOL2D_SIZES, long long count) {
    const long long i = element();
    if (i >= count) return;
    const Place at(i, P, Q, C);
    Sum<T> sum = 0;
    for (int r = 0; r < R; r++) {
        const int h = at.h * stride_h - pad_h + r * dilation_h;
        if (h < 0 || h >= H) continue;
        for (int s = 0; s < S; s++) {
            const int w = at.w * stride_w - pad_w + s * dilation_w;
            if (w >= 0 && w < W) sum += x[(((long long)at.n * H + h) * W + w) * C + at.c];
        }
    }
    y[i] = sum / (row_counts[at.h] * column_counts[at.w]);
}

template <typename T>
__global__ void avg_pool2d_backward(const T* __restrict__ dy,             // [N, P, Q, C]
                                    const Sum<T>* __restrict__ row_counts, // [P]
                                    const Sum<T>* __restrict__ column_counts, // [Q]
                                    T* __restrict__ dx,                   // [N, H, W, C]
                                    POOL2D_SIZES, long long count) {
    const long long i = element();
    if (i >= count) return;
    const Place at(i, H, W, C);
    Sum<T> sum = 0;
    for (int r = R - 1; r >= 0; r--) {
        const int p = window_of(at.h, r, stride_h, pad_h, dilation_h, P);
        if (p < 0) continue;
        for (int s = S - 1; s >= 0; s--) {
            const int q = window_of(at.w, s, stride_w, pad_w, dilation_w, Q);
            if (q < 0) continue;
            sum += dy[(((long long)at.n * P + p) * Q + q) * C + at.c] / (row_counts[p] * column_counts[q]);
        }
    }
    dx[i] = sum;
}
