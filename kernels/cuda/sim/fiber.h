// Fibers: stacks that one thread of the operating system changes between by hand. A switch saves the registers that a
// function must preserve, exchanges the stack pointers and returns into the other function: about 2 ns, and no system
// call, as swapcontext would make.
#pragma once
#include <sys/mman.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

extern "C" void sim_switch(void** save, void* to);  // *save: the stack pointer to come back with

#if defined(__x86_64__)
constexpr int SAVED_WORDS = 6, RETURN_WORD = 6;  // what sim_switch leaves on a stack
#elif defined(__aarch64__)
constexpr int SAVED_WORDS = 20, RETURN_WORD = 11;
#else
#error "cuda-sim knows how to switch stacks on x86-64 and aarch64 only"
#endif

namespace sim {

struct Fiber {
    void* stack_pointer;  // while it does not run
    char* top;            // of its stack
};

// The stacks of one engine, in one piece of address space: whether an address is a CUDA thread's local variable is one
// comparison. Memory is used page by page, as it is touched.
class Fibers {
  public:
    explicit Fibers(void (*entry)()) : entry_(entry) {
        void* memory =
            mmap(nullptr, COUNT * SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (memory == MAP_FAILED) {
            std::fputs("cuda-sim: no address space for the stacks of 1024 threads\n", stderr);
            std::abort();
        }
        memory_ = static_cast<char*>(memory);
        for (size_t i = 0; i < COUNT; i++) {
#ifndef SIM_PARALLEL  // many workers would need more mappings than a process may have
            mprotect(memory_ + i * SIZE, GUARD, PROT_NONE);  // an overflow stops here, not in a neighbour's variables
#endif
            all_[i].top = memory_ + (i + 1) * SIZE;
        }
        reset();
    }
    ~Fibers() { munmap(memory_, COUNT * SIZE); }
    Fibers(const Fibers&) = delete;

    void reset() {  // those that were used start anew; what their stacks held is abandoned
        while (used_ > 0) prepare(&all_[--used_]);
        idle_.clear();
        for (size_t i = COUNT; i-- > 0;) idle_.push_back(&all_[i]);
    }
    Fiber* take() {
        Fiber* fiber = idle_.back();
        idle_.pop_back();
        used_ = std::max(used_, fiber - all_ + 1);
        return fiber;
    }
    void give_back(Fiber* fiber) { idle_.push_back(fiber); }
    bool contains(uintptr_t address) const { return address - reinterpret_cast<uintptr_t>(memory_) < COUNT * SIZE; }

  private:
    static constexpr size_t COUNT = 1024, SIZE = 128 * 1024, GUARD = 4096;
    Fiber* prepare(Fiber* fiber) {  // as sim_switch would have left it, about to return into entry_
        void** word = reinterpret_cast<void**>(fiber->top) - SAVED_WORDS - 4;
        std::fill(word, word + SAVED_WORDS + 2, nullptr);
        word[RETURN_WORD] = reinterpret_cast<void*>(entry_);
        fiber->stack_pointer = word;
        return fiber;
    }

    void (*entry_)();
    char* memory_;
    Fiber all_[COUNT];
    std::vector<Fiber*> idle_;
    std::ptrdiff_t used_ = COUNT;  // the first so many
};

}  // namespace sim
