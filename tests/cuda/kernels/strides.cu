// A sample for the memory report: one warp reads elements that lie `stride` apart and stores them so.

template <typename T>
__global__ void strides(const T* x, T* y, int stride) {
    extern __shared__ __align__(16) unsigned char smem[];
    T* const shared = reinterpret_cast<T*>(smem);
    shared[threadIdx.x * stride] = x[threadIdx.x * stride];
    y[threadIdx.x] = shared[threadIdx.x * stride];
}
