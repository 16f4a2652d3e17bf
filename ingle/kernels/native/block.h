// The two matrix products every kernel is made of, for one thread.
//
// Both keep one accumulator per result and walk the summed dimension in the same order whatever
// the block size is. So a result depends on its own inputs only, to the last bit: that is what
// makes a row alone equal the same row in a batch.
#pragma once
#include "vec.h"

constexpr int ROW_BLOCK = 64;  // rows per pass: their share of x stays in the second cache
constexpr int AXPY_ROWS = 6;   // with two vectors a row: 12 sums, 2 vectors and a factor fit 16 registers

// y[r][o] (+)= sum_i x[r][i] * w[o][i]: weights stay as the checkpoint stores them, [out, in].
template <class T>
void dot_block(const float* x, index_t ldx, index_t rows, const T* w, index_t ldw, index_t outs,
               index_t inner, float* y, index_t ldy, bool add = false);

// y[r][c] (+)= sum_t p[r][t] * b[t][c], summed over t in order.
template <class T>
void axpy_block(const float* p, index_t ldp, index_t rows, const T* b, index_t ldb, int inner, int cols,
                float* y, index_t ldy, bool add);

// The same with p stored turned: y[r][c] (+)= sum_t p[t][r] * b[t][c].
void axpy_turned(const float* p, index_t ldp, index_t rows, const float* b, index_t ldb, int inner, int cols,
                 float* y, index_t ldy, bool add);

// Exact copy of n values as floats.
inline void widen(const bf16* from, index_t n, float* to) {
  index_t i = 0;
  for (; i + VEC <= n; i += VEC) store(to + i, load(from + i));
  if (i < n) store_part(to + i, load_part(from + i, int(n - i)), int(n - i));
}
