// CUDA C++ for the host's compiler: the qualifiers, types and functions that minifcn's kernels use, named as NVRTC
// names them. What NVRTC lacks (INFINITY, standard headers) is lacking here too, and so are atomics: no kernel of
// minifcn needs one.
#pragma once
#include "runtime.h"

#define MINIFCN_SIM 1

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(bytes) __attribute__((aligned(bytes)))
#define __constant__ __attribute__((section(".data.constant")))
// The module's zero-initialised memory is the block's shared memory (runtime.cpp); see also source.py.
#ifdef SIM_PARALLEL
#define __shared__ static __thread
#else
#define __shared__ static
#endif
#define SIM_DYNAMIC_SHARED(type, name) type* const name = static_cast<type*>(sim::dynamic_shared())

#define threadIdx (sim::position.thread)
#define blockIdx (sim::position.block)
#define blockDim (sim::position.block_size)
#define gridDim (sim::position.grid_size)
constexpr int warpSize = sim::WARP;

// --- vector types ---------------------------------------------------------------------------------------------------

#define SIM_VECTORS(scalar, name, bytes)                                            \
    struct alignas(2 * bytes) name##2 { scalar x, y; };                             \
    struct alignas(4 * bytes > 16 ? 16 : 4 * bytes) name##4 { scalar x, y, z, w; }; \
    inline name##2 make_##name##2(scalar x, scalar y) { return {x, y}; }            \
    inline name##4 make_##name##4(scalar x, scalar y, scalar z, scalar w) { return {x, y, z, w}; }
SIM_VECTORS(signed char, char, 1)
SIM_VECTORS(unsigned char, uchar, 1)
SIM_VECTORS(short, short, 2)
SIM_VECTORS(unsigned short, ushort, 2)
SIM_VECTORS(int, int, 4)
SIM_VECTORS(unsigned, uint, 4)
SIM_VECTORS(long long, longlong, 8)
SIM_VECTORS(unsigned long long, ulonglong, 8)
SIM_VECTORS(float, float, 4)
SIM_VECTORS(double, double, 8)
#undef SIM_VECTORS

// --- arithmetic -----------------------------------------------------------------------------------------------------

#define SIM_MATH1(name)                                              \
    inline float name##f(float x) { return __builtin_##name##f(x); } \
    inline float name(float x) { return __builtin_##name##f(x); }    \
    inline double name(double x) { return __builtin_##name(x); }
#define SIM_MATH2(name)                                                          \
    inline float name##f(float x, float y) { return __builtin_##name##f(x, y); } \
    inline float name(float x, float y) { return __builtin_##name##f(x, y); }    \
    inline double name(double x, double y) { return __builtin_##name(x, y); }
SIM_MATH1(exp)
SIM_MATH1(exp2)
SIM_MATH1(expm1) SIM_MATH1(log) SIM_MATH1(log2) SIM_MATH1(log1p) SIM_MATH1(sqrt) SIM_MATH1(tanh) SIM_MATH1(fabs)
    SIM_MATH1(floor) SIM_MATH1(ceil) SIM_MATH1(trunc) SIM_MATH1(round) SIM_MATH1(rint) SIM_MATH2(pow) SIM_MATH2(fmod)
        SIM_MATH2(fmax) SIM_MATH2(fmin) SIM_MATH2(copysign)
#undef SIM_MATH1
#undef SIM_MATH2
            inline float fmaf(float x, float y, float z) {
    return __builtin_fmaf(x, y, z);
}
inline float fma(float x, float y, float z) { return __builtin_fmaf(x, y, z); }
inline double fma(double x, double y, double z) { return __builtin_fma(x, y, z); }
inline float rsqrtf(float x) { return 1.0f / __builtin_sqrtf(x); }
inline float rsqrt(float x) { return rsqrtf(x); }
inline double rsqrt(double x) { return 1.0 / __builtin_sqrt(x); }
inline float __expf(float x) { return __builtin_expf(x); }
inline float __logf(float x) { return __builtin_logf(x); }
inline float __fdividef(float x, float y) { return x / y; }
inline bool isnan(float x) { return x != x; }
inline bool isnan(double x) { return x != x; }
inline bool isinf(float x) { return __builtin_isinf(x); }
inline bool isinf(double x) { return __builtin_isinf(x); }
inline bool isfinite(float x) { return __builtin_isfinite(x); }
inline bool isfinite(double x) { return __builtin_isfinite(x); }

inline int abs(int x) { return x < 0 ? -x : x; }
inline long long abs(long long x) { return x < 0 ? -x : x; }
#define SIM_MIN_MAX(type)                                     \
    inline type min(type x, type y) { return y < x ? y : x; } \
    inline type max(type x, type y) { return x < y ? y : x; }
SIM_MIN_MAX(int)
SIM_MIN_MAX(unsigned)
SIM_MIN_MAX(long)
SIM_MIN_MAX(unsigned long)
SIM_MIN_MAX(long long)
SIM_MIN_MAX(unsigned long long)
#undef SIM_MIN_MAX
inline float min(float x, float y) { return __builtin_fminf(x, y); }  // of a number and NaN the number, as on the GPU
inline float max(float x, float y) { return __builtin_fmaxf(x, y); }
inline double min(double x, double y) { return __builtin_fmin(x, y); }
inline double max(double x, double y) { return __builtin_fmax(x, y); }

namespace sim {
template <typename To, typename From>
inline To bits(From value) {
    static_assert(sizeof(To) == sizeof(From), "the same bits as another type of the same size");
    To result;
    __builtin_memcpy(&result, &value, sizeof result);
    return result;
}
}  // namespace sim
inline int __float_as_int(float x) { return sim::bits<int>(x); }
inline unsigned __float_as_uint(float x) { return sim::bits<unsigned>(x); }
inline float __int_as_float(int x) { return sim::bits<float>(x); }
inline float __uint_as_float(unsigned x) { return sim::bits<float>(x); }
inline long long __double_as_longlong(double x) { return sim::bits<long long>(x); }
inline double __longlong_as_double(long long x) { return sim::bits<double>(x); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __clz(int x) { return x ? __builtin_clz(x) : 32; }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline unsigned __umulhi(unsigned x, unsigned y) { return static_cast<unsigned long long>(x) * y >> 32; }
inline unsigned long long __umul64hi(unsigned long long x, unsigned long long y) {
    return static_cast<unsigned __int128>(x) * y >> 64;
}
template <typename T>
inline T __ldg(const T* address) {
    return *address;
}

// --- threads that wait for each other -------------------------------------------------------------------------------

// The compiler must not carry memory over a point where other threads run, nor make a call the function's last jump:
// the return address is the line in a message.
#define SIM_FENCE asm volatile("" ::: "memory")

inline void __syncthreads() {
    SIM_FENCE;
    sim::barrier();
    SIM_FENCE;
}

namespace sim {

template <typename Operand, typename Result>
inline Result exchange(const char* name, unsigned mask, Operand operand, Evaluate evaluate) {
    Result result;
    SIM_FENCE;
    collective(name, mask, &operand, &result, evaluate);
    SIM_FENCE;
    return result;
}

template <typename T>
struct Shuffle {
    T value;
    int from;  // the lane whose value this one takes
};

template <typename T>
inline T shuffle(const char* name, unsigned mask, T value, int from) {
    return exchange<Shuffle<T>, T>(name, mask, {value, from}, [](const void* const* operands, void* const* results) {
        const auto* const* of = reinterpret_cast<const Shuffle<T>* const*>(operands);
        for (int lane = 0; lane < WARP; lane++) {
            if (!of[lane]) continue;
            if (!of[of[lane]->from])
                fail_lane("lane %d shuffles from lane %d, which does not take part", lane, of[lane]->from);
            *static_cast<T*>(results[lane]) = of[of[lane]->from]->value;
        }
    });
}

inline unsigned vote(const char* name, unsigned mask, bool predicate) {
    return exchange<bool, unsigned>(name, mask, predicate, [](const void* const* operands, void* const* results) {
        unsigned votes = 0;
        for (int lane = 0; lane < WARP; lane++)
            if (operands[lane] && *static_cast<const bool*>(operands[lane])) votes |= 1u << lane;
        for (int lane = 0; lane < WARP; lane++)
            if (operands[lane]) *static_cast<unsigned*>(results[lane]) = votes;
    });
}

}  // namespace sim

inline void __syncwarp(unsigned mask = 0xffffffffu) {
    SIM_FENCE;
    sim::collective("__syncwarp", mask, nullptr, nullptr, nullptr);
    SIM_FENCE;
}
inline unsigned __activemask() { return sim::active_mask(); }
inline unsigned __ballot_sync(unsigned mask, int predicate) { return sim::vote("__ballot_sync", mask, predicate); }
inline int __any_sync(unsigned mask, int predicate) { return sim::vote("__any_sync", mask, predicate) != 0; }
inline int __all_sync(unsigned mask, int predicate) { return sim::vote("__all_sync", mask, !predicate) == 0; }
template <typename T>
inline T __shfl_sync(unsigned mask, T value, int source, int width = 32) {
    const int first = sim::lane() & ~(width - 1);
    return sim::shuffle("__shfl_sync", mask, value, first + (source & (width - 1)));
}
template <typename T>
inline T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32) {
    const int lane = sim::lane(), from = lane ^ lanes;
    return sim::shuffle("__shfl_xor_sync", mask, value, from < (lane & ~(width - 1)) + width ? from : lane);
}
template <typename T>
inline T __shfl_down_sync(unsigned mask, T value, unsigned lanes, int width = 32) {
    const int lane = sim::lane(), from = lane + lanes;
    return sim::shuffle("__shfl_down_sync", mask, value, from < (lane & ~(width - 1)) + width ? from : lane);
}
template <typename T>
inline T __shfl_up_sync(unsigned mask, T value, unsigned lanes, int width = 32) {
    const int lane = sim::lane(), from = lane - static_cast<int>(lanes);
    return sim::shuffle("__shfl_up_sync", mask, value, from >= (lane & ~(width - 1)) ? from : lane);
}

// --- what a module exports ------------------------------------------------------------------------------------------

namespace sim {

struct Parameter {  // of a kernel
    char kind;      // f, i, u, b (bool): the type, or what a pointer points to; x: anything else
    char pointer;   // 0: a value, 1: a pointer, 2: a pointer to const
    short size;     // in bytes, of the value or of what it points to
};

template <typename T>
constexpr char kind_of = T(0.5f) != T(0) ? 'f'
                         : T(-1) < T(0)  ? 'i'
                                         : 'u';
template <>
constexpr char kind_of<bool> = 'b';

template <typename T>
constexpr Parameter parameter(const T*) {  // by value; a struct has no kind
    if constexpr (__is_class(T) || __is_union(T))
        return {'x', 0, sizeof(T)};
    else
        return {kind_of<T>, 0, sizeof(T)};
}
template <typename T>
constexpr Parameter parameter(T* const*) {
    return {parameter(static_cast<T*>(nullptr)).kind, 1, sizeof(T)};
}
template <typename T>
constexpr Parameter parameter(const T* const*) {
    return {parameter(static_cast<T*>(nullptr)).kind, 2, sizeof(T)};
}

template <typename... T>
struct Types {};

template <typename Kernel, typename... Bound>
inline void call(Kernel kernel, const Slot*, Types<>, Bound&... bound) {
    kernel(bound...);
}
template <typename Kernel, typename T, typename... Rest, typename... Bound>
inline void call(Kernel kernel, const Slot* arguments, Types<T, Rest...>, Bound&... bound) {
    call(kernel, arguments + 1, Types<Rest...>{}, bound..., *reinterpret_cast<const T*>(arguments));
}

template <auto kernel, typename Function = decltype(kernel)>
struct Entry;
template <auto kernel, typename... T>
struct Entry<kernel, void (*)(T...)> {
    static constexpr int COUNT = sizeof...(T);
    static constexpr Parameter PARAMETERS[COUNT + 1] = {parameter(static_cast<T*>(nullptr))..., {'x', 0, 0}};
    static void run(const Slot* arguments) { call(kernel, arguments, Types<T...>{}); }
};

}  // namespace sim

#define SIM_EXPORT(...)                                                                                       \
    extern "C" __attribute__((visibility("default"))) void sim_kernel(const sim::Slot* arguments) {           \
        sim::Entry<__VA_ARGS__>::run(arguments);                                                              \
    }                                                                                                         \
    extern "C" __attribute__((visibility("default"))) int sim_parameters(const sim::Parameter** parameters) { \
        *parameters = sim::Entry<__VA_ARGS__>::PARAMETERS;                                                    \
        return sim::Entry<__VA_ARGS__>::COUNT;                                                                \
    }                                                                                                         \
    extern "C" char __bss_start[], _end[];                                                                    \
    extern "C" __attribute__((visibility("default"))) char* sim_static_shared(unsigned long* bytes) {         \
        *bytes = _end - __bss_start;                                                                          \
        return __bss_start;                                                                                   \
    }
