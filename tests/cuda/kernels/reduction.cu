// Samples for the simulator: sums by shuffles, and an exchange through shared memory within a warp.

template <typename T>
__device__ inline T sum_of_warp(T value) {
    for (int lanes = 16; lanes; lanes /= 2) value += __shfl_xor_sync(0xffffffff, value, lanes);
    return value;
}

// y[row] = sum of x[row, :], x [rows, count], a block a row.
template <typename T>
__global__ void sum_rows(const T* __restrict__ x, T* __restrict__ y, int count) {
    __shared__ T sums[32];
    const T* row = x + (long long)blockIdx.x * count;
    T sum = 0;
    for (int i = threadIdx.x; i < count; i += blockDim.x) sum += row[i];
    sum = sum_of_warp(sum);
    if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = sum;
    __syncthreads();
    if (threadIdx.x < 32) {
        sum = sum_of_warp(threadIdx.x < blockDim.x / 32 ? sums[threadIdx.x] : (T)0);
        if (threadIdx.x == 0) y[blockIdx.x] = sum;
    }
}

// y = x with the four numbers of every thread, and the 32 threads of every warp, in reverse; 128 threads a block.
__global__ void reverse(const float* __restrict__ x, float* __restrict__ y) {
    __shared__ float4 values[128];
    const int i = blockIdx.x * blockDim.x + threadIdx.x, first = threadIdx.x / 32 * 32;
    values[threadIdx.x] = reinterpret_cast<const float4*>(x)[i];
    __syncwarp();
    const float4 other = values[first + 31 - threadIdx.x % 32];
    reinterpret_cast<float4*>(y)[i] = make_float4(other.w, other.z, other.y, other.x);
}
