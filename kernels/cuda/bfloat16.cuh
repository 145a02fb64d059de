// bfloat16: the upper half of a float, in memory only. Arithmetic is float32's: a number widens where it is read and is
// rounded where it is stored.
#pragma once

struct bfloat16 {
    unsigned short bits;

    bfloat16() = default;
    __device__ __forceinline__ bfloat16(float x);  // to nearest, ties to even; every NaN becomes 0x7fff
    __device__ __forceinline__ operator float() const { return __uint_as_float(static_cast<unsigned>(bits) << 16); }
};

__device__ __forceinline__ bfloat16::bfloat16(float x) {
#ifdef MINIFCN_SIM
    const unsigned word = __float_as_uint(x);
    bits = x != x ? 0x7fff : (word + 0x7fff + (word >> 16 & 1)) >> 16;
#else
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(x));
#endif
}

// Two numbers in one register, as mma takes them: `low` in the lower half.
__device__ __forceinline__ unsigned pack_bfloat16(float low, float high) {
#ifdef MINIFCN_SIM
    return bfloat16(low).bits | static_cast<unsigned>(bfloat16(high).bits) << 16;
#else
    unsigned result;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(result) : "f"(high), "f"(low));
    return result;
#endif
}

// What numbers stored as T are summed in.
template <typename T>
struct Sums {
    using type = T;
};
template <>
struct Sums<bfloat16> {
    using type = float;
};
template <typename T>
using Sum = typename Sums<T>::type;
