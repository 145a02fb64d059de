// Arrays of float32 as bfloat16 and back. Bound by memory, one thread an element.

#include "common.cuh"

template <typename From, typename To>
__global__ void convert(const From* __restrict__ x, To* __restrict__ y, long long count) {
    const long long i = element();
    if (i < count) y[i] = x[i];
}
