// A sample for the simulator: the convolution of the definition, one thread an output, stride 1, zero padding.
// x [N, H, W, C], w [K, R, S, C], y [N, P, Q, K].

template <typename T>
__global__ void convolution(const T* __restrict__ x, const T* __restrict__ w, T* __restrict__ y, int N, int H, int W,
                            int C, int K, int R, int S, int padding) {
    const int P = H + 2 * padding - R + 1, Q = W + 2 * padding - S + 1;
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= N * P * Q * K) return;
    const int k = i % K, q = i / K % Q, p = i / K / Q % P, n = i / K / Q / P;
    T sum = 0;
    for (int r = 0; r < R; r++) {
        for (int s = 0; s < S; s++) {
            const int h = p + r - padding, v = q + s - padding;
            if (h < 0 || h >= H || v < 0 || v >= W) continue;
            for (int c = 0; c < C; c++)
                sum = fma(x[((n * H + h) * W + v) * C + c], w[((k * R + r) * S + s) * C + c], sum);
        }
    }
    y[i] = sum;
}
