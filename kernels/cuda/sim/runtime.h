// What a compiled kernel asks of the simulator: where it is, barriers, warp collectives, asynchronous copies.
// Included by every kernel, so it needs no standard header; runtime.cpp keeps these promises.
#pragma once

#ifdef SIM_PARALLEL  // blocks run on several threads of the operating system: each has a state of its own
#define SIM_LOCAL __thread
#else
#define SIM_LOCAL
#endif

struct uint3 {
    unsigned x, y, z;
};

struct dim3 {
    unsigned x, y, z;
};

namespace sim {

constexpr int WARP = 32;

struct Position {  // threadIdx, blockIdx, blockDim, gridDim of the CUDA thread that runs
    uint3 thread, block;
    dim3 block_size, grid_size;
};
extern SIM_LOCAL Position position;

using Slot = unsigned long long;  // holds one argument of a kernel: a pointer or a number

// Computes what every lane gets: operands[lane] and results[lane] point to the lane's own variables, and are null for
// lanes that do not take part.
using Evaluate = void (*)(const void* const* operands, void* const* results);

void barrier();  // waits for all threads of the block
void collective(const char* name, unsigned mask, const void* operand, void* result, Evaluate evaluate);
unsigned active_mask();  // the lanes of this warp that have not returned
void* dynamic_shared();

void copy_async(void* shared, const void* global, int size, int bytes);  // `bytes` of `size` copied, the rest zeros
void commit_copies();                                                    // those since the last commit are one group
void wait_copies(int pending);  // all groups but the last `pending` have landed

[[noreturn]] void fail_lane(const char* rule, int lane, int other);  // `rule` takes the two lanes, as printf does

inline int lane() {
    const Position& at = position;
    return (at.thread.x + at.block_size.x * (at.thread.y + at.block_size.y * at.thread.z)) % WARP;
}

}  // namespace sim
