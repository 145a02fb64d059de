// The state of a block that runs: its threads, who can go on, and who waits for whom. See runtime.cpp.
#pragma once
#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "fiber.h"
#include "runtime.h"

namespace sim {

constexpr int MAX_THREADS = 1024;
constexpr size_t MAX_SHARED = 227 * 1024, SLACK = 64 * 1024;  // an overrun of dynamic shared memory lands in the slack

struct Array {  // a kernel's argument
    char* begin;
    size_t bytes;
    int parameter, writable;
};

struct Traced {           // an access to memory that threads share
    uint64_t pc, offset;  // in the array, or in shared memory
    uint32_t block, thread;
    uint16_t size;
    uint8_t write, shared;
};

struct Launch {  // laid out as in launch.py
    void (*kernel)(const Slot* arguments);
    const Slot* arguments;
    size_t argument_count;
    dim3 grid, block;
    size_t shared;  // dynamic, in bytes
    char* static_shared;
    size_t static_bytes;
    const Array* arrays;
    size_t array_count;
    Traced* trace;  // flavour check: the first accesses are written here, unless it is null
    size_t trace_size;
    size_t* traced;  // how many there were
    uint64_t order, seed, workers;
};

enum Order { IN_ORDER, LAST_FIRST, RANDOM };

enum class State { FRESH, READY, AT_BARRIER, IN_COLLECTIVE, DONE };

struct Copy {  // a cp.async under way
    char* to;
    const char* from;
    int size, bytes, group;
    bool copied;
};

struct Thread {
    uint3 index;
    int number;  // in the block, x first
    State state;
    Fiber* fiber;    // null before it has started
    const void* pc;  // where it waits

    const char* name;  // of the collective, its operand and where the result goes
    unsigned mask;
    const void* operand;
    void* result;
    Evaluate evaluate;

    std::vector<Copy> copies;  // oldest first
    int group;                 // the group that the next copy belongs to
    unsigned warp_epoch;       // of the last __syncwarp it took part in

    int lane() const { return number % WARP; }
};

struct Warp {
    unsigned alive, waiting;  // lanes that have not returned, and those in a collective
    unsigned epoch;           // counts __syncwarp
};

class Generator {  // splitmix64: small, seeded, the same everywhere
  public:
    explicit Generator(uint64_t seed) : state_(seed) {}
    uint64_t operator()() {
        uint64_t z = state_ += 0x9e3779b97f4a7c15;
        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
        z = (z ^ z >> 27) * 0x94d049bb133111eb;
        return z ^ z >> 31;
    }

  private:
    uint64_t state_;
};

class Ready {  // the threads that can go on; the order says which does
  public:
    void clear() { first_ = count_ = 0; }
    void put(Thread* thread) { at(count_++) = thread; }
    Thread* take(Order order, Generator& random) {
        if (!count_) return nullptr;
        if (order == RANDOM) std::swap(at(random() % count_), at(count_ - 1));
        count_--;
        return order == IN_ORDER ? threads_[first_++ % MAX_THREADS] : at(count_);
    }

  private:
    Thread*& at(unsigned i) { return threads_[(first_ + i) % MAX_THREADS]; }
    Thread* threads_[MAX_THREADS];
    unsigned first_ = 0, count_ = 0;
};

class Engine {
  public:
    Engine();
    bool run(const Launch& launch, size_t worker);  // its share of the blocks; false: a fault has stopped it

    void barrier(const void* pc);
    void collective(const char* name, unsigned mask, const void* operand, void* result, Evaluate evaluate,
                    const void* pc);
    unsigned active_mask() const { return warps_[current_->number / WARP].alive; }
    void* dynamic_shared() const { return shared_; }
    void copy_async(char* to, const char* from, int size, int bytes, const void* pc);
    void commit_copies() { current_->group++; }
    void wait_copies(int pending, const void* pc);
    [[noreturn]] void stop();  // leaves the launch: a finding has been reported

    const Launch& launch() const { return *launch_; }
    const Thread& current() const { return *current_; }
    const Thread& evaluated() const { return *evaluated_; }
    unsigned block() const { return block_; }
    unsigned epoch() const { return epoch_; }
    unsigned warp_epoch() const { return current_->warp_epoch; }
    bool on_stack(uintptr_t address) const { return fibers_.contains(address); }
    std::string here() const;  // "thread (0,1,0) of block (2,0,0)"
    std::string thread_text(unsigned block, unsigned number) const;

  private:
    static void fiber_main();
    bool run_block(unsigned block);
    void run_thread(Thread& thread);
    void suspend();
    void finish(Thread& thread);
    void release_barrier();
    void release_collective(Warp& warp, Thread* lanes, unsigned mask);
    void report_deadlock();
    static void land(Copy& copy);
    void resume(Thread& thread);

    const Launch* launch_;
    Order order_;
    Generator random_;
    unsigned block_, count_, arrived_, done_, epoch_;
    bool failed_;
    Thread* current_;
    Thread* evaluated_;  // one of those that take part in the collective
    Thread* next_;       // who a fiber that is switched to shall run, where it runs nobody
    Thread threads_[MAX_THREADS];
    Warp warps_[MAX_THREADS / WARP];
    Ready ready_;
    Fibers fibers_;
    void* main_;  // the stack pointer of run_block
    std::unique_ptr<char[]> shared_memory_;
    char* shared_;
};

extern SIM_LOCAL Engine* engine;  // of this thread of the operating system

// A finding is one line, KIND and a text in which @{offset} stands for a place in the module.
void report(const char* kind, const std::string& text);
std::string place(const void* pc);
std::string hex(uintptr_t value);

}  // namespace sim
