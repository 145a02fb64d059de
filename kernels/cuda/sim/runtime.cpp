// The simulator: runs a kernel's blocks one after the other, and the threads of a block as fibers of one thread of the
// operating system. A fiber runs until its CUDA thread waits for others (barrier, warp collective) or returns; then
// the next one that can run does. Nothing here depends on time, so a launch does the same on every run.
//
// Shared memory: `__shared__` is `static`, so the module's zero-initialised memory (.bss) holds one block's arrays,
// and a block finds it filled with 0xFF: NaN for a float, -1 for an int. That is what uninitialised means here.
//
// Flavours of this file: fast; parallel (SIM_PARALLEL: blocks on several threads, each with an engine and, through
// __thread, static shared memory of its own, which is not poisoned); check (SIM_CHECK: sanitizer.cpp hears of every
// access). This library and a kernel's module are linked by the names in runtime.h.
#include "runtime.h"

#include <dlfcn.h>

#include <cstring>
#include <map>
#include <mutex>
#include <set>
#include <thread>

#include "engine.h"
#include "sanitizer.h"
#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace sim {

SIM_LOCAL Position position;
SIM_LOCAL Engine* engine;

// --- findings -------------------------------------------------------------------------------------------------------

namespace {
std::mutex reporting;
std::set<std::string> reported;  // each once
std::string report_text;
constexpr size_t MAX_FINDINGS = 1000;  // one line of a kernel has many places: Python merges them

unsigned product(const dim3& size) { return size.x * size.y * size.z; }

uint3 index_of(unsigned number, const dim3& size) {
    return {number % size.x, number / size.x % size.y, number / size.x / size.y};
}

std::string text(const uint3& at) {
    return "(" + std::to_string(at.x) + "," + std::to_string(at.y) + "," + std::to_string(at.z) + ")";
}
}  // namespace

void report(const char* kind, const std::string& text) {
    std::lock_guard<std::mutex> lock(reporting);
    if (reported.size() < MAX_FINDINGS && reported.insert(kind + ("\t" + text)).second)
        report_text += kind + ("\t" + text) + "\n";
}

std::string hex(uintptr_t value) {
    char digits[20];
    std::snprintf(digits, sizeof digits, "%zx", static_cast<size_t>(value));
    return digits;
}

std::string place(const void* pc) {
    Dl_info module;
    if (!pc || !dladdr(pc, &module)) return "?";
    const char* call = static_cast<const char*>(pc) - 1;  // it lies before the address it returns to
    return "@{" + hex(call - static_cast<char*>(module.dli_fbase)) + "}";
}

std::string Engine::thread_text(unsigned block, unsigned number) const {
    return "thread " + text(index_of(number, launch_->block)) + " of block " + text(index_of(block, launch_->grid));
}

std::string Engine::here() const { return thread_text(block_, current_->number); }

// --- fibers ---------------------------------------------------------------------------------------------------------

Engine::Engine() : random_(0), fibers_(fiber_main), shared_memory_(new char[MAX_SHARED + SLACK + 1024]) {
    const uintptr_t address = reinterpret_cast<uintptr_t>(shared_memory_.get());
    shared_ = reinterpret_cast<char*>((address + 1023) / 1024 * 1024);
}

void Engine::fiber_main() {  // runs threads that have not started, as long as one is next
    Engine& engine = *sim::engine;
    Fiber* const self = engine.next_->fiber;
    for (;;) {
        engine.run_thread(*engine.next_);
        Thread* next = engine.next_ = engine.ready_.take(engine.order_, engine.random_);
        if (next && !next->fiber) {
            next->fiber = self;
            continue;
        }
        engine.fibers_.give_back(self);
        sim_switch(&self->stack_pointer, next ? next->fiber->stack_pointer : engine.main_);
    }
}

void Engine::resume(Thread& thread) {
    current_ = &thread;
    position.thread = thread.index;
}

void Engine::run_thread(Thread& thread) {
    resume(thread);
    launch_->kernel(launch_->arguments);
    finish(thread);
}

void Engine::suspend() {  // the current thread waits; returns when it can go on and its turn has come
    Thread& self = *current_;
    Thread* next = next_ = ready_.take(order_, random_);
    if (next != &self) {
        if (next && !next->fiber) next->fiber = fibers_.take();
        sim_switch(&self.fiber->stack_pointer, next ? next->fiber->stack_pointer : main_);
    }
    resume(self);
}

void Engine::stop() {
    failed_ = true;
    void* abandoned;
    sim_switch(&abandoned, main_);
    __builtin_unreachable();
}

void Engine::finish(Thread& thread) {
    for (Copy& copy : thread.copies) land(copy);
    Warp& warp = warps_[thread.number / WARP];
    Thread* lanes = &thread - thread.lane();
    thread.state = State::DONE;
    done_++;
    warp.alive &= ~(1u << thread.lane());
    for (int lane = 0; lane < WARP; lane++)  // those that waited for this one
        if ((warp.waiting >> lane & 1) && (lanes[lane].mask >> thread.lane() & 1))
            release_collective(warp, lanes, lanes[lane].mask);
    release_barrier();
}

// --- waiting for each other -----------------------------------------------------------------------------------------

void Engine::barrier(const void* pc) {
    current_->state = State::AT_BARRIER;
    current_->pc = pc;
    arrived_++;
    release_barrier();
    suspend();
}

void Engine::release_barrier() {  // the threads that have returned count as arrived, as they do on the GPU
    if (!arrived_ || arrived_ + done_ < count_) return;
    sanitizer::barrier(threads_, count_, done_);
    epoch_++;
    arrived_ = 0;
    for (unsigned i = 0; i < count_; i++) {
        if (threads_[i].state != State::AT_BARRIER) continue;
        threads_[i].state = State::READY;
        ready_.put(&threads_[i]);
    }
}

void Engine::collective(const char* name, unsigned mask, const void* operand, void* result, Evaluate evaluate,
                        const void* pc) {
    Thread& self = *current_;
    Warp& warp = warps_[self.number / WARP];
    Thread* const lanes = &self - self.lane();
    self.name = name, self.mask = mask, self.operand = operand, self.result = result, self.evaluate = evaluate;
    self.pc = pc;
    if (!(mask >> self.lane() & 1)) {
        report("mask", std::string(name) + " by lane " + std::to_string(self.lane()) + ", " + here() +
                           ", which is not in its mask, at " + place(pc));
        stop();
    }
    if (const unsigned met = mask & warp.waiting) {
        const Thread& other = lanes[__builtin_ctz(met)];
        if (other.mask != mask || other.evaluate != evaluate) {
            char masks[64];
            std::snprintf(masks, sizeof masks, "masks %08x and %08x", mask, other.mask);
            report("collective", std::string("lanes of one warp meet in ") + name + " at " + place(pc) + " and " +
                                     other.name + " at " + place(other.pc) + " (" + masks + "), " + here());
            stop();
        }
        sanitizer::same_place(name, pc, other.pc);
    }
    self.state = State::IN_COLLECTIVE;
    warp.waiting |= 1u << self.lane();
    release_collective(warp, lanes, mask);
    suspend();
}

void Engine::release_collective(Warp& warp, Thread* lanes, unsigned mask) {
    const unsigned expected = mask & warp.alive;
    if (!expected || (warp.waiting & expected) != expected) return;
    const void* operands[WARP] = {};
    void* results[WARP] = {};
    for (int lane = 0; lane < WARP; lane++) {
        if (!(expected >> lane & 1)) continue;
        operands[lane] = lanes[lane].operand;
        results[lane] = lanes[lane].result;
    }
    evaluated_ = &lanes[__builtin_ctz(expected)];
    const Evaluate evaluate = evaluated_->evaluate;
    if (evaluate)
        evaluate(operands, results);
    else  // __syncwarp: the one collective that also orders memory
        warp.epoch++;
    warp.waiting &= ~expected;
    for (int lane = 0; lane < WARP; lane++) {
        if (!(expected >> lane & 1)) continue;
        if (!evaluate) lanes[lane].warp_epoch = warp.epoch;
        lanes[lane].state = State::READY;
        ready_.put(&lanes[lane]);
    }
}

void Engine::report_deadlock() {
    std::map<std::string, int> waiting;
    for (unsigned i = 0; i < count_; i++) {
        const Thread& thread = threads_[i];
        if (thread.state == State::AT_BARRIER) waiting["in __syncthreads at " + place(thread.pc)]++;
        if (thread.state == State::IN_COLLECTIVE)
            waiting["in " + std::string(thread.name) + " at " + place(thread.pc)]++;
    }
    std::string message =
        "block " + text(position.block) + " cannot go on: of its " + std::to_string(count_) + " threads";
    for (const auto& [where, threads] : waiting) message += " " + std::to_string(threads) + " wait " + where + ",";
    report("deadlock", message + " " + std::to_string(done_) + " have returned");
}

// --- asynchronous copies --------------------------------------------------------------------------------------------
// The GPU may copy at any moment between the issue and the wait that covers it: here at the wait, at the issue, or by
// chance at one of the two, as the order says.

void Engine::land(Copy& copy) {
    if (copy.copied) return;
    std::memcpy(copy.to, copy.from, copy.bytes);
    std::memset(copy.to + copy.bytes, 0, copy.size - copy.bytes);
    copy.copied = true;
}

void Engine::copy_async(char* to, const char* from, int size, int bytes, const void* pc) {
    if (bytes < 0 || bytes > size) {
        report("cp.async", "copies " + std::to_string(bytes) + " of " + std::to_string(size) + " bytes at " +
                               place(pc) + ", " + here());
        stop();
    }
    sanitizer::copy_issued(to, from, size, bytes, pc);
    Copy copy{to, from, size, bytes, current_->group, false};
    if (order_ == LAST_FIRST || (order_ == RANDOM && random_() & 1)) land(copy);
    current_->copies.push_back(copy);
}

void Engine::wait_copies(int pending, const void* pc) {
    std::vector<Copy>& copies = current_->copies;
    const auto end = std::find_if(copies.begin(), copies.end(),
                                  [&](const Copy& copy) { return copy.group >= current_->group - pending; });
    for (auto copy = copies.begin(); copy != end; ++copy) {
        land(*copy);
        sanitizer::copy_landed(copy->to, copy->size, pc);
    }
    copies.erase(copies.begin(), end);
}

// --- blocks ---------------------------------------------------------------------------------------------------------

bool Engine::run_block(unsigned block) {
    block_ = block;
    position.block = index_of(block, launch_->grid);
    arrived_ = done_ = epoch_ = 0;
    ready_.clear();
#ifndef SIM_PARALLEL
    std::memset(launch_->static_shared, 0xff, launch_->static_bytes);
#endif
    std::memset(shared_, 0xff, launch_->shared);
    for (unsigned i = 0; i < count_; i++) {
        Thread& thread = threads_[i];
        thread.state = State::FRESH;
        thread.fiber = nullptr;
        thread.copies.clear();
        thread.group = 0;
        thread.warp_epoch = 0;
        ready_.put(&thread);
    }
    for (unsigned first = 0; first < count_; first += WARP)
        warps_[first / WARP] = {count_ - first < WARP ? (1u << (count_ - first)) - 1 : ~0u, 0, 0};
    next_ = ready_.take(order_, random_);
    next_->fiber = fibers_.take();
    sim_switch(&main_, next_->fiber->stack_pointer);
    if (!failed_ && done_ < count_) report_deadlock();
    return !failed_ && done_ == count_;
}

bool Engine::run(const Launch& launch, size_t worker) {
    engine = this;
    launch_ = &launch;
    order_ = static_cast<Order>(launch.order);
    random_ = Generator(launch.seed + worker);
    failed_ = false;
    count_ = product(launch.block);
    position.block_size = launch.block;
    position.grid_size = launch.grid;
    for (unsigned i = 0; i < count_; i++) {
        threads_[i].index = index_of(i, launch.block);
        threads_[i].number = i;
    }
    fibers_.reset();
#if defined(__x86_64__)
    const unsigned mode = _mm_getcsr();
    _mm_setcsr(mode | 0x8040);  // subnormal numbers are zero: CuPy compiles everything with -ftz=true
#endif
    sanitizer::begin_launch();
    std::vector<unsigned> blocks;
    for (unsigned block = worker; block < product(launch.grid); block += launch.workers) blocks.push_back(block);
    if (order_ == LAST_FIRST) std::reverse(blocks.begin(), blocks.end());
    if (order_ == RANDOM)
        for (size_t i = blocks.size(); i-- > 1;) std::swap(blocks[i], blocks[random_() % (i + 1)]);
    bool well = true;
    for (size_t i = 0; well && i < blocks.size(); i++) well = run_block(blocks[i]);
    sanitizer::end_launch();
    engine = nullptr;
#if defined(__x86_64__)
    _mm_setcsr(mode);
#endif
    return well;
}

// --- what a kernel calls --------------------------------------------------------------------------------------------

#define CALLER __builtin_return_address(0)

void barrier() { engine->barrier(CALLER); }
void collective(const char* name, unsigned mask, const void* operand, void* result, Evaluate evaluate) {
    engine->collective(name, mask, operand, result, evaluate, CALLER);
}
unsigned active_mask() { return engine->active_mask(); }
void* dynamic_shared() { return engine->dynamic_shared(); }
void copy_async(void* shared, const void* global, int size, int bytes) {
    engine->copy_async(static_cast<char*>(shared), static_cast<const char*>(global), size, bytes, CALLER);
}
void commit_copies() { engine->commit_copies(); }
void wait_copies(int pending) { engine->wait_copies(pending, CALLER); }

void fail_lane(const char* rule, int lane, int other) {
    const Thread& thread = engine->evaluated();
    char message[256];
    std::snprintf(message, sizeof message, rule, lane, other);
    report("lane", std::string(thread.name) + ": " + message + ", at " + place(thread.pc) + ", " + engine->here());
    engine->stop();
}

}  // namespace sim

// --- what Python calls ----------------------------------------------------------------------------------------------

// Runs all blocks; returns the findings, a line each, or an empty text. One launch at a time.
extern "C" const char* sim_launch(const sim::Launch* launch) {
    static std::vector<std::unique_ptr<sim::Engine>> engines;  // of the workers; their stacks are kept
    sim::report_text.clear();
    sim::reported.clear();
    while (engines.size() < launch->workers) engines.push_back(std::make_unique<sim::Engine>());
    std::vector<std::thread> workers;
    for (size_t worker = 1; worker < launch->workers; worker++)
        workers.emplace_back([=] { engines[worker]->run(*launch, worker); });
    engines[0]->run(*launch, 0);
    for (std::thread& worker : workers) worker.join();
    return sim::report_text.c_str();
}
