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

// A factor of `outer`: how far apart its strips or panels lie, and in them the values of t and t + 1. Rows that
// lie odd_lines apart need not be packed: those of a strip or panel share no set of the first cache.
struct Factor {
  const float* data;
  index_t next, step;
};
inline Factor in_strips(const float* packed, index_t k) { return {packed, strip_floats(k), STRIP}; }
inline Factor in_panels(const float* packed, index_t k) { return {packed, PANEL * k, PANEL}; }
inline Factor rows_as_strips(const float* from, index_t ld) { return {from, STRIP, ld}; }
inline Factor rows_as_panels(const float* from, index_t ld) { return {from, PANEL, ld}; }
inline index_t odd_lines(index_t n) { return ((n + LINE - 1) / LINE | 1) * LINE; }

// y[i][c] (+)= sum_t a[t][i] * b[t][c], i < m, c < n. The last panel is read whole.
void outer(Factor a, index_t m, Factor b, index_t k, index_t n, float* y, index_t ld, bool add);

// Rows that gradients are summed over are divided into as many lanes, which threads take: their sums,
// `stride` apart, are added up in order.
constexpr index_t LANES = 8;
void add_lanes(const float* sums, index_t stride, index_t n, float* total);
