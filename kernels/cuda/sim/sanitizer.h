// What the runtime tells the sanitizer (sanitizer.cpp, flavour check); in the other flavours nobody listens.
#pragma once
#include "engine.h"

namespace sim::sanitizer {

#ifdef SIM_CHECK
#define SIM_LISTENS(declaration) declaration;
#else
#define SIM_LISTENS(declaration) \
    inline declaration {}
#endif

SIM_LISTENS(void begin_launch())
SIM_LISTENS(void end_launch())
SIM_LISTENS(void barrier(const Thread*, unsigned, unsigned))              // threads, how many, how many returned
SIM_LISTENS(void same_place(const char*, const void*, const void*))       // a collective's name and two call sites
SIM_LISTENS(void copy_issued(char*, const char*, int, int, const void*))  // to, from, size, bytes, pc
SIM_LISTENS(void copy_landed(char*, int, const void*))

}  // namespace sim::sanitizer
