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
    bf16[i] = to_bfloat16(x[i]);
    pairs[i] = pack_bfloat16(x[i], to_float(bf16[i]));
}
