// The sanitizer of flavour `check`: a kernel compiled with -fsanitize=thread and some groups of -fsanitize=undefined
// calls a hook at every access and every broken rule of C++. libtsan and libubsan are not linked; the hooks are here,
// where blocks, warps and barriers are known.
//
// Every word of shared memory and of the arrays has a record (Cell) of who wrote and who read it last. Two accesses of
// which one is a write are a race unless an order is certain:
//
//   different blocks                         never
//   one block, different threads             a __syncthreads lies between: an earlier epoch of the block
//   one warp, different lanes                also a __syncwarp: an earlier epoch of the warp
//
// That does not depend on the order in which the threads happen to run, so a race shows in nearly any. Shuffles and
// votes order nothing, as the CUDA C++ Programming Guide says. A cp.async counts as a write when it is issued and again
// when its thread has waited for it; between the two nobody may touch its destination.
#include "sanitizer.h"

#include <dlfcn.h>
#include <link.h>

#include <cstdlib>
#include <cstring>
#include <map>
#include <set>
#include <tuple>

namespace sim::sanitizer {
namespace {

struct Access {
    const void* pc;  // null: none yet
    unsigned block, epoch, warp_epoch;
    unsigned short thread;
};

enum class Readers : unsigned char { NONE, ONE_THREAD, ONE_WARP, ONE_BLOCK, BLOCKS };  // since the last write

struct Cell {
    Access write, read;  // the last ones
    unsigned owner;      // of shared memory: the block that this record belongs to, counted from 1
    Readers readers;
    bool in_flight;  // a cp.async is to write here
};

struct Region {  // memory with records
    char* begin;
    size_t bytes;
    bool shared;
    int shift;    // a cell is 2^shift bytes: 4, less once a smaller access was seen
    Cell* cells;  // zeros are no record; calloc makes large ones page by page

    bool contains(const char* address) const { return address >= begin && address < begin + bytes; }
    void allocate() { cells = static_cast<Cell*>(std::calloc((bytes >> shift) + 1, sizeof(Cell))); }
    void refine() {
        Cell* const coarse = cells;
        const size_t count = (bytes >> shift) + 1;
        shift--;
        allocate();
        for (size_t i = 0; i < (bytes >> shift) + 1; i++)
            if (i / 2 < count) cells[i] = coarse[i / 2];
        std::free(coarse);
    }
};

std::vector<Region> regions;  // static and dynamic shared memory first, then arrays that do not overlap
std::set<std::tuple<std::string, const void*, const void*>> seen;
std::vector<std::pair<const char*, const char*>> images;  // the module, this library, the arguments' values

void add_image(const void* inside) {
    Dl_info image;
    if (!dladdr(inside, &image)) return;
    dl_iterate_phdr(
        [](dl_phdr_info* object, size_t, void* base) {
            if (object->dlpi_addr != reinterpret_cast<uintptr_t>(base)) return 0;
            const char *begin = static_cast<const char*>(base), *end = begin;
            for (int i = 0; i < object->dlpi_phnum; i++) {
                const auto& segment = object->dlpi_phdr[i];
                if (segment.p_type == PT_LOAD) end = std::max(end, begin + segment.p_vaddr + segment.p_memsz);
            }
            images.emplace_back(begin, end);
            return 1;
        },
        image.dli_fbase);
}

// One finding a kind and pair of places; the text begins with what happened `at` the first.
void find(const char* kind, const void* pc, const std::string& text, const void* other = nullptr) {
    if (seen.emplace(kind, pc, other).second) report(kind, text);
}

std::string bytes_text(long long count) { return std::to_string(count) + (count == 1 ? " byte" : " bytes"); }

std::string where(const Region& region, const char* address) {
    if (&region == &regions[0]) return "static shared memory";
    if (&region == &regions[1]) return "byte " + std::to_string(address - region.begin) + " of dynamic shared memory";
    const Launch& launch = engine->launch();
    for (size_t i = 0; i < launch.array_count; i++) {
        const Array& array = launch.arrays[i];
        if (address >= array.begin && address < array.begin + array.bytes)
            return "byte " + std::to_string(address - array.begin) + " of @[" + std::to_string(array.parameter) + "]";
    }
    return "an array";
}

// --- out of bounds --------------------------------------------------------------------------------------------------

[[noreturn]] void out_of_bounds(const char* address, int size, bool write, const void* pc) {
    const Launch& launch = engine->launch();
    const char* dynamic = static_cast<const char*>(engine->dynamic_shared());
    std::string what = std::string(write ? "writes " : "reads ") + bytes_text(size) + " at " + place(pc) + ", ";
    if (address >= dynamic && address < dynamic + MAX_SHARED + SLACK) {
        what += bytes_text(address + size - dynamic - launch.shared) + " past the end of " +
                std::to_string(launch.shared) + " bytes of dynamic shared memory";
    } else {
        const Array* nearest = nullptr;
        long long distance = 1ll << 62, past = 0;
        for (size_t i = 0; i < launch.array_count; i++) {
            const Array& array = launch.arrays[i];
            const long long end = array.begin + array.bytes - address - size, begin = address - array.begin;
            const long long outside = std::max(-end, -begin);
            if (outside < distance) distance = outside, nearest = &array, past = -end;
        }
        if (!address)
            what += "through a null pointer";
        else if (nearest)
            what += bytes_text(distance) + (past == distance ? " past the end" : " before the beginning") + " of @[" +
                    std::to_string(nearest->parameter) + "], which has " + std::to_string(nearest->bytes);
        else
            what += "outside of every argument";
    }
    find("out of bounds", pc, what + "; " + engine->here());
    engine->stop();  // before it happens
}

Region* region_of(const char* address, int size, bool write, const void* pc) {  // null: memory that nobody shares
    for (Region& region : regions)
        if (region.contains(address)) {
            if (address + size > region.begin + region.bytes) out_of_bounds(address, size, write, pc);
            return &region;
        }
    for (const auto& [begin, end] : images)
        if (address >= begin && address < end) return nullptr;
    out_of_bounds(address, size, write, pc);
}

void check_arrays(const char* address, int size, bool write, const void* pc) {  // regions join arrays: look again
    const Launch& launch = engine->launch();
    bool inside = false;
    for (size_t i = 0; i < launch.array_count; i++) {
        const Array& array = launch.arrays[i];
        if (address < array.begin || address + size > array.begin + array.bytes) continue;
        if (!write || array.writable) return;
        inside = true;
    }
    if (!inside) out_of_bounds(address, size, write, pc);
    find("write to const", pc, "writes at " + place(pc) + " to an array that is const; " + engine->here());
}

// --- races ----------------------------------------------------------------------------------------------------------

bool ordered(const Access& before) {  // before the access that happens now
    const unsigned thread = engine->current().number;
    if (before.block != engine->block()) return false;
    if (before.thread == thread || before.epoch < engine->epoch()) return true;
    return before.thread / WARP == thread / WARP && before.warp_epoch < engine->warp_epoch();
}

bool ordered_reads(const Cell& cell) {  // all reads since the last write
    switch (cell.readers) {
        case Readers::NONE: return true;
        case Readers::ONE_THREAD: return ordered(cell.read);
        case Readers::BLOCKS: return false;
        default: break;
    }
    if (cell.read.block != engine->block()) return false;
    if (cell.read.epoch < engine->epoch()) return true;
    return cell.readers == Readers::ONE_WARP && cell.read.thread / WARP == engine->current().number / WARP &&
           cell.read.warp_epoch < engine->warp_epoch();
}

Readers readers_with(const Cell& cell, const Access& now) {
    const Access& last = cell.read;
    if (cell.readers == Readers::NONE) return Readers::ONE_THREAD;
    if (cell.readers == Readers::BLOCKS || last.block != now.block) return Readers::BLOCKS;
    if (last.epoch != now.epoch) return Readers::ONE_THREAD;  // a barrier lies between
    if (cell.readers == Readers::ONE_BLOCK || last.thread / WARP != now.thread / WARP) return Readers::ONE_BLOCK;
    if (last.warp_epoch < now.warp_epoch) return Readers::ONE_THREAD;
    return last.thread == now.thread ? cell.readers : Readers::ONE_WARP;
}

void race(const char* kind, bool write, const Access& now, const Access& before, bool before_write,
          const Region& region, const char* address) {
    const Engine& at = *engine;
    find(kind, now.pc,
         std::string(write ? "writes" : "reads") + " at " + place(now.pc) + " what " +
             at.thread_text(before.block, before.thread) + (before_write ? " writes" : " reads") + " at " +
             place(before.pc) +
             (before.block == now.block ? ", with no barrier between" : ", and nothing orders blocks") + ": " +
             where(region, address) + "; " + at.here(),
         before.pc);
}

void record(Cell& cell, bool write, const Access& now, const Region& region, const char* address) {
    if (region.shared && cell.owner != now.block + 1) {
        cell = Cell();
        cell.owner = now.block + 1;
    }
    if (cell.in_flight) {
        find("cp.async under way", now.pc,
             std::string(write ? "writes" : "reads") + " at " + place(now.pc) + " what a cp.async of " +
                 engine->thread_text(cell.write.block, cell.write.thread) + ", issued at " + place(cell.write.pc) +
                 ", has not been waited for: " + where(region, address) + "; " + engine->here(),
             cell.write.pc);
        return;
    }
    if (!write && region.shared && !cell.write.pc) {
        find("uninitialised", now.pc,
             "reads at " + place(now.pc) + " what nobody has written: " + where(region, address) + "; " +
                 engine->here());
        return;
    }
    if (cell.write.pc && !ordered(cell.write)) race("race", write, now, cell.write, true, region, address);
    if (write) {
        if (!ordered_reads(cell)) race("race", write, now, cell.read, false, region, address);
        cell.write = now;
        cell.readers = Readers::NONE;
    } else {
        cell.readers = readers_with(cell, now);
        cell.read = now;
    }
}

Access access_at(const void* pc) {
    return {pc, engine->block(), engine->epoch(), engine->warp_epoch(),
            static_cast<unsigned short>(engine->current().number)};
}

template <typename Visit>
void cells_of(Region& region, const char* address, int size, Visit visit) {
    const size_t offset = address - region.begin;
    while (region.shift && ((offset | size) & ((1u << region.shift) - 1))) region.refine();
    for (size_t at = offset; at < offset + size; at += size_t(1) << region.shift)
        visit(region.cells[at >> region.shift], region.begin + at);
}

void trace(const Region& region, const char* address, int size, bool write, const void* pc) {
    const Launch& launch = engine->launch();
    if (!launch.trace) return;
    const char* call = static_cast<const char*>(pc) - 1;
    if (*launch.traced < launch.trace_size)
        launch.trace[(*launch.traced)++] = {
            static_cast<uint64_t>(call - images[0].first),
            static_cast<uint64_t>(region.shared ? address - static_cast<char*>(nullptr) : address - region.begin),
            engine->block(),
            static_cast<uint32_t>(engine->current().number),
            static_cast<uint16_t>(size),
            write,
            region.shared};
}

void access(const void* address_, int size, bool write, const void* pc) {
    if (!engine) return;  // no launch: Python asks a module for its parameters
    const char* address = static_cast<const char*>(address_);
    if (engine->on_stack(reinterpret_cast<uintptr_t>(address))) return;
    Region* region = region_of(address, size, write, pc);
    if (!region) return;
    if (!region->shared) check_arrays(address, size, write, pc);
    trace(*region, address, size, write, pc);
    const Access now = access_at(pc);
    cells_of(*region, address, size, [&](Cell& cell, const char* word) { record(cell, write, now, *region, word); });
}

}  // namespace

// --- what the runtime tells -----------------------------------------------------------------------------------------

void begin_launch() {
    const Launch& launch = engine->launch();
    seen.clear();
    images.clear();
    add_image(reinterpret_cast<const void*>(launch.kernel));
    add_image(&position);
    images.emplace_back(reinterpret_cast<const char*>(launch.arguments),
                        reinterpret_cast<const char*>(launch.arguments + launch.argument_count));
    regions.push_back({launch.static_shared, launch.static_bytes, true, 2, nullptr});
    regions.push_back({static_cast<char*>(engine->dynamic_shared()), launch.shared, true, 2, nullptr});
    std::map<char*, char*> joined;  // views of one array overlap
    for (size_t i = 0; i < launch.array_count; i++) {
        char *begin = launch.arrays[i].begin, *end = begin + launch.arrays[i].bytes;
        for (auto it = joined.begin(); it != joined.end();) {
            if (it->first < end && begin < it->second) {
                begin = std::min(begin, it->first);
                end = std::max(end, it->second);
                it = joined.erase(it);
            } else {
                ++it;
            }
        }
        joined[begin] = end;
    }
    for (const auto& [begin, end] : joined)
        regions.push_back({begin, static_cast<size_t>(end - begin), false, 2, nullptr});
    for (Region& region : regions) region.allocate();
}

void end_launch() {
    for (Region& region : regions) std::free(region.cells);
    regions.clear();
}

void barrier(const Thread* threads, unsigned count, unsigned returned) {
    const Thread* first = nullptr;
    for (unsigned i = 0; i < count; i++) {
        if (threads[i].state != State::AT_BARRIER) continue;
        if (!first) first = &threads[i];
        if (threads[i].pc != first->pc)
            find("divergent barrier", threads[i].pc,
                 "threads of block " + std::to_string(engine->block()) + " meet in __syncthreads at " +
                     place(threads[i].pc) + " and at " + place(first->pc),
                 first->pc);
    }
    if (returned)
        find("barrier not by all", first->pc,
             std::to_string(returned) + " of " + std::to_string(count) +
                 " threads have returned when the others wait in "
                 "__syncthreads at " +
                 place(first->pc));
}

void same_place(const char* name, const void* pc, const void* other) {
    if (pc != other)
        find("divergent collective", pc,
             std::string("lanes of one warp meet in ") + name + " at " + place(pc) + " and at " + place(other) + "; " +
                 engine->here(),
             other);
}

void copy_issued(char* to, const char* from, int size, int bytes, const void* pc) {
    for (const char* address : {static_cast<const char*>(to), from})
        if (reinterpret_cast<uintptr_t>(address) % size)
            find("misaligned", pc,
                 "cp.async at " + place(pc) + (address == to ? " to" : " from") +
                     " an address that is no multiple of " + std::to_string(size) + "; " + engine->here());
    if (bytes) access(from, bytes, false, pc);
    Region* region = region_of(to, size, true, pc);
    if (!region || !region->shared) {
        find("cp.async", pc, "cp.async at " + place(pc) + " does not write to shared memory; " + engine->here());
        engine->stop();
    }
    access(to, size, true, pc);
    cells_of(*region, to, size, [&](Cell& cell, const char*) { cell.in_flight = true; });
}

void copy_landed(char* to, int size, const void* pc) {
    Region* region = region_of(to, size, true, pc);
    const Access now = access_at(pc);
    cells_of(*region, to, size, [&](Cell& cell, const char*) {
        cell.in_flight = false;
        cell.write = now;
    });
}

}  // namespace sim::sanitizer

// --- hooks ----------------------------------------------------------------------------------------------------------

#define CALLER __builtin_return_address(0)
#define HOOK extern "C" void

#define ACCESS_HOOKS(size)                                                                                    \
    HOOK __tsan_read##size(void* address) { sim::sanitizer::access(address, size, false, CALLER); }           \
    HOOK __tsan_write##size(void* address) { sim::sanitizer::access(address, size, true, CALLER); }           \
    HOOK __tsan_unaligned_read##size(void* address) { sim::sanitizer::access(address, size, false, CALLER); } \
    HOOK __tsan_unaligned_write##size(void* address) { sim::sanitizer::access(address, size, true, CALLER); } \
    HOOK __tsan_volatile_read##size(void* address) { sim::sanitizer::access(address, size, false, CALLER); }  \
    HOOK __tsan_volatile_write##size(void* address) { sim::sanitizer::access(address, size, true, CALLER); }
ACCESS_HOOKS(1)
ACCESS_HOOKS(2)
ACCESS_HOOKS(4)
ACCESS_HOOKS(8)
ACCESS_HOOKS(16)
HOOK __tsan_read_range(void* address, size_t size) { sim::sanitizer::access(address, size, false, CALLER); }
HOOK __tsan_write_range(void* address, size_t size) { sim::sanitizer::access(address, size, true, CALLER); }
HOOK __tsan_init() {}
HOOK __tsan_func_entry(void*) {}
HOOK __tsan_func_exit() {}

namespace {
void broken(const char* kind, const std::string& what, const void* pc) {
    sim::sanitizer::find(kind, pc, what + " at " + sim::place(pc) + "; " + sim::engine->here());
}
}  // namespace

HOOK __ubsan_handle_type_mismatch_v1(void*, uintptr_t) {
    broken("misaligned", "an address that is no multiple of its type's alignment is used", CALLER);
    sim::engine->stop();  // the processor might end the process
}
HOOK __ubsan_handle_out_of_bounds(void*, uintptr_t index) {
    broken("array index", "index " + std::to_string(static_cast<intptr_t>(index)) + " lies outside of the array",
           CALLER);
}
HOOK __ubsan_handle_shift_out_of_bounds(void*, uintptr_t, uintptr_t) {
    broken("shift", "a shift by too many bits", CALLER);
}
HOOK __ubsan_handle_add_overflow(void*, uintptr_t, uintptr_t) { broken("overflow", "a signed sum overflows", CALLER); }
HOOK __ubsan_handle_sub_overflow(void*, uintptr_t, uintptr_t) {
    broken("overflow", "a signed difference overflows", CALLER);
}
HOOK __ubsan_handle_mul_overflow(void*, uintptr_t, uintptr_t) {
    broken("overflow", "a signed product overflows", CALLER);
}
HOOK __ubsan_handle_negate_overflow(void*, uintptr_t) { broken("overflow", "a negation overflows", CALLER); }
HOOK __ubsan_handle_float_cast_overflow(void*, uintptr_t) {
    broken("conversion", "a floating-point number does not fit into the integer", CALLER);
}
HOOK __ubsan_handle_divrem_overflow(void*, uintptr_t, uintptr_t) {
    broken("division", "a division by zero, or one that overflows,", CALLER);
    sim::engine->stop();  // the processor would end the process
}
