// The head of a segmentation network: bilinear upsampling, crop and softmax cross entropy in one, no logit of full size in
// memory. Derivation: minifcn/ops/upsample_cross_entropy.py.
//
// Forward and argmax: one thread a pixel mixes its logits from four coarse pixels, twice: for the maximum, then for the
// sum. Backward: one block a cell between four coarse pixels. Its pixels' maxima and sums are found by one thread each;
// then each thread keeps one class and adds that class's gradients to four corners, which two neighbouring cells share:
// `join_pieces` adds them. The order of every sum is fixed.

#include "upsample.cuh"

// The largest logit, and the sum of exp(logit - largest), of one pixel.
template <typename T>
struct Softmax {
    Sum<T> largest, total;
    inline __device__ Softmax(const Mixture<T>& logit, int C) : largest(logit(0)), total(0) {
        for (int c = 1; c < C; c++) {
            const Sum<T> value = logit(c);
            if (!(value <= largest)) largest = value;  // a NaN makes the loss NaN
        }
        for (int c = 0; c < C; c++) total += exponential(logit(c) - largest);
    }
};

template <typename T, typename Label>
__global__ void upsample_cross_entropy(const T* __restrict__ x,           // [N, H, W, C]
                                       const Label* __restrict__ target,  // [N, P, Q]
                                       const Sum<T>* __restrict__ weight,  // [C]
                                       long long ignore_index,
                                       REACHES(Sum<T>),
                                       Sum<T>* __restrict__ losses,  // [N, P, Q]
                                       int H, int W, int C, int P, int Q, long long pixels) {
    const long long i = element();
    if (i >= pixels) return;
    const long long t = (long long)target[i];
    if (t == ignore_index) {
        losses[i] = 0;
        return;
    }
    const Place at(i, P, Q, 1);
    const Mixture<T> logit(x + (long long)at.n * H * W * C, W, C, rows[at.h], columns[at.w], row_weights + 2 * at.h,
                           column_weights + 2 * at.w);
    const Softmax<T> softmax(logit, C);
    losses[i] = weight[t] * (logarithm(softmax.total) - (logit((int)t) - softmax.largest));
}

// Cell (k, l) lies between coarse rows k - 1, k and columns l - 1, l. Corner 0 is its (k-1, l-1), then (k-1, l), (k, l-1),
// (k, l). Block (k, l) of image n: blockDim.x threads; dynamic shared memory: 3 numbers and a label a thread, and
// 4 C numbers for each of `lanes` lanes of threads that share the pixels among them.
template <typename T, typename Label>
__global__ void upsample_cross_entropy_backward(const Sum<T>* __restrict__ dy,     // [N, P, Q]
                                                const T* __restrict__ x,           // [N, H, W, C]
                                                const Label* __restrict__ target,  // [N, P, Q]
                                                const Sum<T>* __restrict__ weight,  // [C]
                                                long long ignore_index,
                                                REACHES(Sum<T>),
                                                const long long* __restrict__ row_starts,     // [H + 2]
                                                const long long* __restrict__ column_starts,  // [W + 2]
                                                Sum<T>* __restrict__ pieces,                  // [N, H + 1, W + 1, 4, C]
                                                int H, int W, int C, int P, int Q, int lanes) {
    extern __shared__ __align__(16) unsigned char smem[];
    Sum<T>* const largest = (Sum<T>*)smem;
    Sum<T>* const total = largest + blockDim.x;
    Sum<T>* const factor = total + blockDim.x;
    Sum<T>* const sums = factor + blockDim.x;                     // [lanes, C, 4]
    int* const label = (int*)(sums + (long long)lanes * C * 4);  // -1: ignored

    int k, l;
    const int n = (int)divide(divide(blockIdx.x, W + 1, l), H + 1, k);
    const T* const image = x + (long long)n * H * W * C;
    const long long top = row_starts[k], left = column_starts[l];
    const int width = (int)(column_starts[l + 1] - left), count = (int)(row_starts[k + 1] - top) * width;
    const int thread = threadIdx.x, threads = blockDim.x, units = lanes * C;

    for (int unit = thread; unit < units; unit += threads)
        for (int corner = 0; corner < 4; corner++) sums[4 * unit + corner] = 0;

    for (int first = 0; first < count; first += threads) {
        if (first + thread < count) {
            const long long p = top + (first + thread) / width, q = left + (first + thread) % width;
            const long long pixel = ((long long)n * P + p) * Q + q, t = (long long)target[pixel];
            label[thread] = t == ignore_index ? -1 : (int)t;
            if (t != ignore_index) {
                const Softmax<T> softmax(Mixture<T>(image, W, C, k, l, row_weights + 2 * p, column_weights + 2 * q), C);
                largest[thread] = softmax.largest;
                total[thread] = softmax.total;
                factor[thread] = dy[pixel] * weight[t] / softmax.total;
            }
        }
        __syncthreads();
        const int pixels = smaller(threads, count - first);
        for (int unit = thread; unit < units; unit += threads) {
            const int lane = unit / C, c = unit % C;
            Sum<T>* const sum = sums + 4 * unit;
            for (int j = lane; j < pixels; j += lanes) {
                if (label[j] < 0) continue;
                const long long p = top + (first + j) / width, q = left + (first + j) % width;
                const Mixture<T> logit(image, W, C, k, l, row_weights + 2 * p, column_weights + 2 * q);
                const Sum<T> one = c == label[j] ? total[j] : 0;  // p_c - 1, times the sum
                const Sum<T> gradient = (exponential(logit(c) - largest[j]) - one) * factor[j];
                if (logit.a != 0 && logit.c != 0) sum[0] = multiply_add(logit.a * logit.c, gradient, sum[0]);
                if (logit.a != 0 && logit.d != 0) sum[1] = multiply_add(logit.a * logit.d, gradient, sum[1]);
                if (logit.b != 0 && logit.c != 0) sum[2] = multiply_add(logit.b * logit.c, gradient, sum[2]);
                if (logit.b != 0 && logit.d != 0) sum[3] = multiply_add(logit.b * logit.d, gradient, sum[3]);
            }
        }
        __syncthreads();
    }
    Sum<T>* const piece = pieces + (long long)blockIdx.x * 4 * C;
    for (int i = thread; i < 4 * C; i += threads) {
        const int corner = i / C, c = i % C;
        Sum<T> sum = 0;
        for (int lane = 0; lane < lanes && count > 0; lane++) sum += sums[4 * (lane * C + c) + corner];
        piece[i] = sum;
    }
}

// dx of coarse pixel (i, j): a corner of each of the four cells around it.
template <typename T>
__global__ void join_pieces(const Sum<T>* __restrict__ pieces,  // [N, H + 1, W + 1, 4, C]
                            T* __restrict__ dx,            // [N, H, W, C]
                            int H, int W, int C, long long count) {
    const long long i = element();
    if (i >= count) return;
    const Place at(i, H, W, C);
    const Sum<T>* cell = pieces + (((long long)at.n * (H + 1) + at.h) * (W + 1) + at.w) * 4 * C + at.c;
    const long long right = 4 * C, down = (long long)(W + 1) * 4 * C;
    dx[i] = (cell[3 * C] + cell[right + 2 * C]) + (cell[down + C] + cell[down + right]);
}

// The first of the largest logits of every pixel; NaN wins over numbers.
template <typename T, typename Label>
__global__ void upsample_argmax(const T* __restrict__ x,  // [N, H, W, C]
                                REACHES(Sum<T>),
                                Label* __restrict__ labels,  // [N, P, Q]
                                int H, int W, int C, int P, int Q, long long pixels) {
    const long long i = element();
    if (i >= pixels) return;
    const Place at(i, P, Q, 1);
    const Mixture<T> logit(x + (long long)at.n * H * W * C, W, C, rows[at.h], columns[at.w], row_weights + 2 * at.h,
                           column_weights + 2 * at.w);
    Sum<T> best = logit(0);
    int winner = 0;
    for (int c = 1; c < C; c++) {
        const Sum<T> value = logit(c);
        if (beats(value, best)) best = value, winner = c;
    }
    labels[i] = (Label)winner;
}
