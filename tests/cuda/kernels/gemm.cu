// A sample for the simulator: c [M, N] = a [M, K] b [K, N] on tensor cores in TF32, K and N multiples of 4.
// A block of 128 threads computes a tile of 32 x 32, its four warps 16 x 16 each; tiles of a and b arrive by cp.async,
// STAGES of them in dynamic shared memory, so that the next ones are under way while one is used.
#include "ptx.cuh"

constexpr int TILE = 32, DEPTH = 16, STAGES = 3;
constexpr int A_ROW = DEPTH + 4, B_ROW = TILE + 8;  // longer than the tile: no bank conflicts

struct Stage {
    float a[TILE][A_ROW];
    float b[DEPTH][B_ROW];
};

// What of a row of `size` elements remains from `at` on, in bytes, at most 16.
__device__ inline int bytes_left(int at, int size) { return at >= size ? 0 : size - at >= 4 ? 16 : 4 * (size - at); }

__device__ inline void load(Stage& stage, const float* a, const float* b, int M, int N, int K, int k0) {
    const int m = threadIdx.x / 4, i = threadIdx.x % 4 * 4;
    const int row = blockIdx.y * TILE + m;
    const int a_bytes = row < M ? bytes_left(k0 + i, K) : 0;
    cp_async16(&stage.a[m][i], a_bytes ? a + row * K + k0 + i : a, a_bytes);
    const int k = threadIdx.x / 8, j = threadIdx.x % 8 * 4;
    const int column = blockIdx.x * TILE + j;
    const int b_bytes = k0 + k < K ? bytes_left(column, N) : 0;
    cp_async16(&stage.b[k][j], b_bytes ? b + (k0 + k) * N + column : b, b_bytes);
}

__global__ void __launch_bounds__(128)
    gemm(const float* __restrict__ a, const float* __restrict__ b, float* __restrict__ c, int M, int N, int K) {
    extern __shared__ __align__(16) unsigned char smem[];
    Stage* const stages = reinterpret_cast<Stage*>(smem);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
    const int m0 = warp / 2 * 16, n0 = warp % 2 * 16;  // of the warp, in the tile
    float d[2][4] = {};

    for (int s = 0; s < STAGES - 1; s++) {
        load(stages[s], a, b, M, N, K, s * DEPTH);
        cp_async_commit();
    }
    const int tiles = (K + DEPTH - 1) / DEPTH;
    for (int tile = 0; tile < tiles; tile++) {
        cp_async_wait<STAGES - 2>();
        __syncthreads();  // all copies of this tile have landed, and the stage that is filled next has been read
        load(stages[(tile + STAGES - 1) % STAGES], a, b, M, N, K, (tile + STAGES - 1) * DEPTH);
        cp_async_commit();
        const Stage& stage = stages[tile % STAGES];
        for (int k = 0; k < DEPTH; k += 8) {
            const unsigned of_a[4] = {to_tf32(stage.a[m0 + g][k + t]), to_tf32(stage.a[m0 + g + 8][k + t]),
                                      to_tf32(stage.a[m0 + g][k + t + 4]), to_tf32(stage.a[m0 + g + 8][k + t + 4])};
            for (int j = 0; j < 2; j++) {
                const int n = n0 + 8 * j + g;
                const unsigned of_b[2] = {to_tf32(stage.b[k + t][n]), to_tf32(stage.b[k + t + 4][n])};
                mma_m16n8k8_tf32(d[j], of_a, of_b);
            }
        }
    }
    for (int j = 0; j < 2; j++) {
        for (int i = 0; i < 4; i++) {
            const int m = blockIdx.y * TILE + m0 + g + 8 * (i / 2), n = blockIdx.x * TILE + n0 + 8 * j + 2 * t + i % 2;
            if (m < M && n < N) c[m * N + n] = d[j][i];
        }
    }
}
