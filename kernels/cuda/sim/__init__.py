"""The simulator `cuda-sim`: CUDA sources compiled for the host by g++ or clang, and run there thread by thread.

`build` compiles; `launch` calls what was compiled. `cuda.h` is CUDA C++ for the host's compiler, `runtime.cpp` runs
blocks, `sanitizer.cpp` watches every access. docs/cuda-sim.md says how to use them.
"""
