// Samples for the simulator: one instruction of ptx.cuh each, its operands from memory; one warp.
#include "ptx.cuh"

// out [32, 4] += the product; a [32, registers], b [32, registers]: the lanes' fragments.
__global__ void mma_tf32(const unsigned* a, const unsigned* b, float* out) {
    mma_m16n8k8_tf32(out + 4 * threadIdx.x, a + 4 * threadIdx.x, b + 2 * threadIdx.x);
}
__global__ void mma_bf16(const unsigned* a, const unsigned* b, float* out) {
    mma_m16n8k16_bf16(out + 4 * threadIdx.x, a + 4 * threadIdx.x, b + 2 * threadIdx.x);
}

// r [32, 4]: what the lanes get of four matrices [4, 8, 8] of 16-bit numbers.
template <bool TRANSPOSED>
__global__ void ldmatrix(const uint4* matrices, unsigned* r) {
    __shared__ uint4 rows[32];
    rows[threadIdx.x] = matrices[threadIdx.x];
    __syncthreads();
    if (TRANSPOSED)
        ldmatrix_x4_trans(r + 4 * threadIdx.x, &rows[threadIdx.x]);
    else
        ldmatrix_x4(r + 4 * threadIdx.x, &rows[threadIdx.x]);
}

__global__ void conversions(const float* x, unsigned* tf32, bfloat16* bf16, unsigned* pairs, int count) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    tf32[i] = to_tf32(x[i]);
    bf16[i] = bfloat16(x[i]);
    pairs[i] = pack_bfloat16(x[i], bf16[i]);
}

__global__ void pack(const float* x, unsigned* pairs) { pairs[threadIdx.x] = pack_bfloat16(x[threadIdx.x], x[31 - threadIdx.x]); }

__global__ void widen(const bfloat16* x, float* y) { y[threadIdx.x] = x[threadIdx.x]; }

// first [32], second [32]: the first bytes[i] of x[31 - i], and all of it. Two groups, of which one may still be on its
// way while the other is read.
__global__ void copy(const uint4* x, const int* bytes, uint4* first, uint4* second) {
    __shared__ uint4 rows[2][32];
    const int i = threadIdx.x;
    cp_async16(&rows[0][i], x + i, bytes[i]);
    cp_async_commit();
    cp_async16(&rows[1][i], x + i, 16);
    cp_async_commit();
    cp_async_wait<1>();
    __syncthreads();
    first[i] = rows[0][31 - i];
    cp_async_wait<0>();
    __syncthreads();
    second[i] = rows[1][31 - i];
}
