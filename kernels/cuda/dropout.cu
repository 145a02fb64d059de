// Dropout from Philox4x32-10 (Salmon et al., 2011): the reference's words, so that masks are equal to the bit.
//
// Element e takes word e mod 4 of counter (e div 4, step, layer) under the key `seed`: one thread a counter, four elements.
// Bound by memory. The step lies in memory and not among the arguments, so that a graph of launches can be replayed.

#include "common.cuh"

struct Philox {
    unsigned words[4];

    inline __device__ Philox(unsigned long long block, unsigned step, unsigned layer, unsigned key0, unsigned key1) {
        unsigned x0 = (unsigned)block, x1 = (unsigned)(block >> 32), x2 = step, x3 = layer;
        for (int i = 0; i < 10; i++) {
            const unsigned long long product0 = 0xD2511F53ull * x0, product1 = 0xCD9E8D57ull * x2;
            x0 = (unsigned)(product1 >> 32) ^ x1 ^ key0;
            x1 = (unsigned)product1;
            x2 = (unsigned)(product0 >> 32) ^ x3 ^ key1;
            x3 = (unsigned)product0;
            key0 += 0x9E3779B9u;
            key1 += 0xBB67AE85u;
        }
        words[0] = x0, words[1] = x1, words[2] = x2, words[3] = x3;
    }
};

template <typename T>
__global__ void dropout(const T* __restrict__ x, T* __restrict__ y, unsigned least, Sum<T> factor,
                        const unsigned* __restrict__ step,  // [1]
                        unsigned layer, unsigned key0, unsigned key1, long long count, long long blocks) {
    const long long block = element();
    if (block >= blocks) return;
    const Philox random((unsigned long long)block, *step, layer, key0, key1);
    for (int j = 0; j < 4; j++) {
        const long long i = 4 * block + j;
        if (i < count) y[i] = random.words[j] >= least ? x[i] * factor : (Sum<T>)0;
    }
}
