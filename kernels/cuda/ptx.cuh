// Every PTX instruction that minifcn's kernels use, one function each, and beside it the same in plain C++ for the
// simulator (MINIFCN_SIM). Two readings of one text, the sections cvt, cp.async, mma and ldmatrix of the PTX ISA:
// https://docs.nvidia.com/cuda/parallel-thread-execution. Fragment layouts, with g = lane / 4 and t = lane % 4:
//
//   m16n8k8  tf32   a[0..3] = A[g][t], A[g+8][t], A[g][t+4], A[g+8][t+4]      b[0..1] = B[t][g], B[t+4][g]
//   m16n8k16 bf16   two values a register, the lower column (of B: row) in the lower half:
//                   a[0..3] = A[g][2t..], A[g+8][2t..], A[g][2t+8..], A[g+8][2t+8..]
//                   b[0..1] = B[2t..][g], B[2t+8..][g]
//   both            d[0..3] = D[g][2t], D[g][2t+1], D[g+8][2t], D[g+8][2t+1]
//
// bfloat16.cuh has the conversions of bfloat16. All need compute capability 8.0.
#pragma once
#include "bfloat16.cuh"

// --- TF32: float with 10 bits of mantissa ---------------------------------------------------------------------------

// Rounded to nearest, ties away from zero, in the format that mma takes. Without it mma truncates.
__device__ __forceinline__ unsigned to_tf32(float x) {
#ifdef MINIFCN_SIM
    const unsigned bits = __float_as_uint(x);
    return isfinite(x) ? (bits + 0x1000) & 0xffffe000 : bits;
#else
    unsigned result;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(result) : "f"(x));
    return result;
#endif
}

// --- asynchronous copies from global to shared memory ---------------------------------------------------------------

// 16 bytes, of which the first `bytes` (0 to 16) are read and the others are zeros. Both addresses are multiples of 16.
__device__ __forceinline__ void cp_async16(void* shared, const void* global, int bytes) {
#ifdef MINIFCN_SIM
    SIM_FENCE;
    sim::copy_async(shared, global, 16, bytes);
    SIM_FENCE;
#else
    asm volatile(
        "cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(static_cast<unsigned>(__cvta_generic_to_shared(shared))),
        "l"(global), "r"(bytes)
        : "memory");
#endif
}

// The copies since the last commit become a group.
__device__ __forceinline__ void cp_async_commit() {
#ifdef MINIFCN_SIM
    sim::commit_copies();
#else
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// All groups of this thread but the last N have landed, for this thread: others need a barrier after it.
template <int N>
__device__ __forceinline__ void cp_async_wait() {
#ifdef MINIFCN_SIM
    SIM_FENCE;
    sim::wait_copies(N);
    SIM_FENCE;
#else
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
#endif
}

// --- matrix products of a warp --------------------------------------------------------------------------------------

#ifdef MINIFCN_SIM
namespace sim {

struct Fragments {  // of one lane
    float d[4];
    float a[8], b[4];  // as many as the instruction has
};
struct Accumulators {
    float d[4];
};

// D += A B, summed in double and rounded once. The hardware truncates partial sums: compare with a tolerance.
// Layout says which elements of A and B a lane holds.
template <int K, typename Layout>
inline void multiply(const void* const* operands, void* const* results, Layout layout) {
    constexpr int PER_LANE = K / 2;  // of A's elements; half as many of B's
    float a[16][K], b[8][K];         // B transposed
    const auto* const* of = reinterpret_cast<const Fragments* const*>(operands);
    for (int lane = 0; lane < WARP; lane++) {
        if (!of[lane]) fail_lane("lane %d of %d does not take part", lane, WARP);
        const int g = lane / 4, t = lane % 4;
        for (int i = 0; i < PER_LANE; i++) a[g + 8 * layout.second_row(i)][layout.of_a(t, i)] = of[lane]->a[i];
        for (int i = 0; i < PER_LANE / 2; i++) b[g][layout.of_b(t, i)] = of[lane]->b[i];
    }
    for (int lane = 0; lane < WARP; lane++) {
        for (int i = 0; i < 4; i++) {
            const float* row = a[lane / 4 + 8 * (i / 2)];
            const float* other = b[lane % 4 * 2 + i % 2];
            double sum = of[lane]->d[i];
            for (int k = 0; k < K; k++) sum += static_cast<double>(row[k]) * other[k];
            static_cast<Accumulators*>(results[lane])->d[i] = static_cast<float>(sum);
        }
    }
}

struct LayoutOfTf32 {
    static bool second_row(int i) { return i % 2; }
    static int of_a(int t, int i) { return t + 4 * (i / 2); }
    static int of_b(int t, int i) { return t + 4 * i; }
};
struct LayoutOfBfloat16 {  // element i is in half i % 2 of register i / 2
    static bool second_row(int i) { return i / 2 % 2; }
    static int of_a(int t, int i) { return 2 * t + i % 2 + 8 * (i / 4); }
    static int of_b(int t, int i) { return 2 * t + i % 2 + 8 * (i / 2); }
};

inline float half_of(unsigned pair, int i) { return __uint_as_float(i ? pair & 0xffff0000 : pair << 16); }

}  // namespace sim
#endif

// d += A B, A [16, 8] and B [8, 8] in TF32 (to_tf32; other bits of the mantissa are ignored).
__device__ __forceinline__ void mma_m16n8k8_tf32(float d[4], const unsigned a[4], const unsigned b[2]) {
#ifdef MINIFCN_SIM
    sim::Fragments mine;
    for (int i = 0; i < 4; i++) mine.d[i] = d[i], mine.a[i] = __uint_as_float(a[i] & 0xffffe000);
    for (int i = 0; i < 2; i++) mine.b[i] = __uint_as_float(b[i] & 0xffffe000);
    const auto sums = sim::exchange<sim::Fragments, sim::Accumulators>(
        "mma_m16n8k8_tf32", 0xffffffff, mine, [](const void* const* operands, void* const* results) {
            sim::multiply<8>(operands, results, sim::LayoutOfTf32{});
        });
    for (int i = 0; i < 4; i++) d[i] = sums.d[i];
#else
    asm volatile(
        "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, "
        "%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

// d += A B, A [16, 16] and B [16, 8] in bfloat16, two to a register.
__device__ __forceinline__ void mma_m16n8k16_bf16(float d[4], const unsigned a[4], const unsigned b[2]) {
#ifdef MINIFCN_SIM
    sim::Fragments mine;
    for (int i = 0; i < 4; i++) mine.d[i] = d[i];
    for (int i = 0; i < 8; i++) mine.a[i] = sim::half_of(a[i / 2], i % 2);
    for (int i = 0; i < 4; i++) mine.b[i] = sim::half_of(b[i / 2], i % 2);
    const auto sums = sim::exchange<sim::Fragments, sim::Accumulators>(
        "mma_m16n8k16_bf16", 0xffffffff, mine, [](const void* const* operands, void* const* results) {
            sim::multiply<16>(operands, results, sim::LayoutOfBfloat16{});
        });
    for (int i = 0; i < 4; i++) d[i] = sums.d[i];
#else
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, "
        "%2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

// --- fragments from shared memory -----------------------------------------------------------------------------------
// Four 8 x 8 matrices of 16-bit elements: lane i points to row i % 8 (16 bytes, a multiple of 16) of matrix i / 8, and
// r[m] becomes M[g][2t], M[g][2t+1] of matrix m; transposed, M[2t][g], M[2t+1][g].

#ifdef MINIFCN_SIM
namespace sim {

struct MatrixRow {
    unsigned pairs[4];
};
struct Registers {
    unsigned r[4];
};

template <bool TRANSPOSED>
inline void load_matrices(unsigned r[4], const void* shared) {
    struct alignas(16) Row : MatrixRow {};
    const MatrixRow mine = *static_cast<const Row*>(shared);  // the sanitizer sees this lane read its row
    const auto loaded = exchange<MatrixRow, Registers>(
        TRANSPOSED ? "ldmatrix_x4_trans" : "ldmatrix_x4", 0xffffffff, mine,
        [](const void* const* operands, void* const* results) {
            const auto* const* rows = reinterpret_cast<const MatrixRow* const*>(operands);
            for (int lane = 0; lane < WARP; lane++)
                if (!rows[lane]) fail_lane("lane %d of %d does not take part", lane, WARP);
            const auto element = [&](int matrix, int row, int column) {
                return rows[8 * matrix + row]->pairs[column / 2] >> 16 * (column % 2) & 0xffff;
            };
            for (int lane = 0; lane < WARP; lane++) {
                const int g = lane / 4, t = lane % 4;
                for (int m = 0; m < 4; m++)
                    static_cast<Registers*>(results[lane])->r[m] =
                        TRANSPOSED ? element(m, 2 * t, g) | element(m, 2 * t + 1, g) << 16
                                   : element(m, g, 2 * t) | element(m, g, 2 * t + 1) << 16;
            }
        });
    for (int m = 0; m < 4; m++) r[m] = loaded.r[m];
}

}  // namespace sim
#endif

__device__ __forceinline__ void ldmatrix_x4(unsigned r[4], const void* shared) {
#ifdef MINIFCN_SIM
    sim::load_matrices<false>(r, shared);
#else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(static_cast<unsigned>(__cvta_generic_to_shared(shared)))
                 : "memory");
#endif
}

__device__ __forceinline__ void ldmatrix_x4_trans(unsigned r[4], const void* shared) {
#ifdef MINIFCN_SIM
    sim::load_matrices<true>(r, shared);
#else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(static_cast<unsigned>(__cvta_generic_to_shared(shared)))
                 : "memory");
#endif
}
