// Matrix products whose second factor is packed once and used for many rows: what training runs.
//
// block.h multiplies by weights as they lie, which is best for the few rows of a decoding step. With
// hundreds of rows it pays to lay the second factor out in panels as wide as a block of registers, so
// that it is read in one stream (BLIS, doi 10.1145/2764454). Rows are given by pointers: those an
// expert was chosen for need not be copied side by side first.
//
// Each result is summed in the order of k, whatever the number of rows and threads is.
#pragma once
#include "vec.h"

constexpr int PANEL = (MANY_REGISTERS ? 4 : 2) * VEC;  // columns of a panel
constexpr int STRIP = 6;                               // rows of a block of registers

// Floats of a packed factor of k rows and n columns.
inline index_t packed_size(index_t k, index_t n) { return (n + PANEL - 1) / PANEL * PANEL * k; }

// Pack b[t][c] = from[t * ld + c], or with turned from[c * ld + t].
void pack(const float* from, index_t ld, index_t k, index_t n, float* to);
void pack_turned(const float* from, index_t ld, index_t k, index_t n, float* to);

// One row t of a packed factor from n values in a line; pack() is this for every row.
void pack_row(const float* from, index_t t, index_t k, index_t n, float* to);

// The same for the first factor of `outer`, in strips; rows must come in the order of t, because one
// writes past its end into the next.
inline index_t strip_floats(index_t k) { return k * STRIP + 2; }
inline index_t strips_size(index_t k, index_t m) { return (m + STRIP - 1) / STRIP * strip_floats(k); }
void strip_row(const float* from, float factor, index_t t, index_t k, index_t m, float* to);

// y[r][c] (+)= factors[r] * sum_t a[r][t] * b[t][c] for rows r and columns c < n. Without factors they are 1.
void times_packed(const float* const* a, index_t rows, const float* packed, index_t k, index_t n,
                  float* const* y, const float* factors, bool add);

// y[i][c] (+)= sum_t a[t][i] * b[t][c] of two packed factors, i < m.
void outer(const float* strips, index_t m, const float* packed, index_t k, index_t n, float* y, index_t ld,
           bool add);

// Rows that gradients are summed over are divided into as many lanes, which threads take: their sums,
// `stride` apart, are added up in order.
constexpr index_t LANES = 8;
void add_lanes(const float* sums, index_t stride, index_t n, float* total);
