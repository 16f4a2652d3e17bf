// Register blocks of the two products; see block.h for what they promise.
#include "block.h"

#include <algorithm>

// Block loops must be unrolled before arrays are given registers, or every sum goes through memory.
#if defined(__clang__)
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 8")
#endif

namespace {

constexpr int CHUNK = 1024;    // summed values per pass: 4 rows of weights stay in the first cache
constexpr int DOT_ROWS = MANY_REGISTERS ? 6 : 3;
constexpr int WIDEN_FROM = 4;  // rows from which bf16 weights are widened once, not once per tile

// y[r][c] (+)= sum_i x[r][i] * w[c][i], R x C results held in registers.
template <int R, int C, class T>
inline void dot_tile(const float* x, index_t ldx, const T* w, index_t ldw, int inner, float* y,
                     index_t ldy, bool add) {
  vf acc[R][C] = {};
  int i = 0;
  for (; i + VEC <= inner; i += VEC) {
    vf a[R];
    UNROLL
    for (int r = 0; r < R; r++) a[r] = load(x + r * ldx + i);
    UNROLL
    for (int c = 0; c < C; c++) {
      vf b = load(w + c * ldw + i);
      UNROLL
      for (int r = 0; r < R; r++) acc[r][c] = fma(a[r], b, acc[r][c]);
    }
  }
  if (i < inner) {
    UNROLL
    for (int c = 0; c < C; c++) {
      vf b = load_part(w + c * ldw + i, inner - i);
      UNROLL
      for (int r = 0; r < R; r++) acc[r][c] = fma(load_part(x + r * ldx + i, inner - i), b, acc[r][c]);
    }
  }
  UNROLL
  for (int r = 0; r < R; r++) {
    float* out = y + r * ldy;
    if constexpr (C % 4 == 0) {
      UNROLL
      for (int c = 0; c < C; c += 4) {
        v4 s = sum4(acc[r][c], acc[r][c + 1], acc[r][c + 2], acc[r][c + 3]), before;
        if (add) {
          std::memcpy(&before, out + c, sizeof before);
          s = before + s;
        }
        std::memcpy(out + c, &s, sizeof s);
      }
    } else {
      UNROLL
      for (int c = 0; c < C; c++) out[c] = add ? out[c] + sum(acc[r][c]) : sum(acc[r][c]);
    }
  }
}

// C outputs for any number of rows, split into blocks of nearly equal height.
template <int C, class T>
void dot_column(const float* x, index_t ldx, int rows, const T* w, index_t ldw, int inner, float* y,
                index_t ldy, bool add) {
  int blocks = (rows + DOT_ROWS - 1) / DOT_ROWS;
  for (int r = 0; blocks > 0; blocks--) {
    int height = (rows - r + blocks - 1) / blocks;
    const float* xr = x + r * ldx;
    float* yr = y + r * ldy;
    switch (height) {
      case 1: dot_tile<1, C>(xr, ldx, w, ldw, inner, yr, ldy, add); break;
      case 2: dot_tile<2, C>(xr, ldx, w, ldw, inner, yr, ldy, add); break;
      case 3: dot_tile<3, C>(xr, ldx, w, ldw, inner, yr, ldy, add); break;
#if defined(__AVX512F__) || defined(__aarch64__)
      case 4: dot_tile<4, C>(xr, ldx, w, ldw, inner, yr, ldy, add); break;
      case 5: dot_tile<5, C>(xr, ldx, w, ldw, inner, yr, ldy, add); break;
      case 6: dot_tile<6, C>(xr, ldx, w, ldw, inner, yr, ldy, add); break;
#endif
    }
    r += height;
  }
}

template <int C>
inline void dot_outputs(const float* x, index_t ldx, int rows, const float* w, index_t ldw, int inner,
                        float* y, index_t ldy, bool add) {
  dot_column<C>(x, ldx, rows, w, ldw, inner, y, ldy, add);
}

template <int C>
inline void dot_outputs(const float* x, index_t ldx, int rows, const bf16* w, index_t ldw, int inner,
                        float* y, index_t ldy, bool add) {
  if (rows < WIDEN_FROM) return dot_column<C>(x, ldx, rows, w, ldw, inner, y, ldy, add);
  alignas(64) float wide[C * CHUNK];
  for (int c = 0; c < C; c++) widen(w + c * ldw, inner, wide + c * CHUNK);
  dot_column<C>(x, ldx, rows, wide, CHUNK, inner, y, ldy, add);
}

// Where the factors p[r][t] of a sum over t lie: rows apart, and summed values apart.
struct Steps {
  index_t row, sum;
};

// y[r][v] (+)= sum_t p[r][t] * b[t][v], R rows x V vectors.
template <int R, int V, class T>
inline void axpy_tile(const float* p, Steps at, const T* b, index_t ldb, int inner, float* y,
                      index_t ldy, bool add) {
  vf acc[R][V];
  UNROLL
  for (int r = 0; r < R; r++)
    UNROLL
    for (int v = 0; v < V; v++) acc[r][v] = add ? load(y + r * ldy + v * VEC) : vf{};
  for (int t = 0; t < inner; t++) {
    vf x[V];
    UNROLL
    for (int v = 0; v < V; v++) x[v] = load(b + t * ldb + v * VEC);
    UNROLL
    for (int r = 0; r < R; r++) {
      vf a = splat(p[r * at.row + t * at.sum]);
      UNROLL
      for (int v = 0; v < V; v++) acc[r][v] = fma(a, x[v], acc[r][v]);
    }
  }
  UNROLL
  for (int r = 0; r < R; r++)
    UNROLL
    for (int v = 0; v < V; v++) store(y + r * ldy + v * VEC, acc[r][v]);
}

// The columns that do not fill a vector, one row at a time.
template <class T>
inline void axpy_part(const float* p, index_t next, const T* b, index_t ldb, int inner, float* y, int part, bool add) {
  vf acc = add ? load_part(y, part) : vf{};
  for (int t = 0; t < inner; t++) acc = fma(splat(p[t * next]), load_part(b + t * ldb, part), acc);
  store_part(y, acc, part);
}

template <int R, class T>
void axpy_rows(const float* p, Steps at, const T* b, index_t ldb, int inner, int cols, float* y,
               index_t ldy, bool add) {
  constexpr int V = R == 1 ? 8 : R >= 4 && !MANY_REGISTERS ? 2 : 4;
  int c = 0;
  for (; c + V * VEC <= cols; c += V * VEC)
    axpy_tile<R, V>(p, at, b + c, ldb, inner, y + c, ldy, add);
  for (; c + VEC <= cols; c += VEC) axpy_tile<R, 1>(p, at, b + c, ldb, inner, y + c, ldy, add);
  if (c < cols)
    for (int r = 0; r < R; r++) axpy_part(p + r * at.row, at.sum, b + c, ldb, inner, y + r * ldy + c, cols - c, add);
}

template <class T>
void axpy_all(const float* p, Steps at, index_t rows, const T* b, index_t ldb, int inner, int cols,
              float* y, index_t ldy, bool add) {
  index_t r = 0;
  for (; r + AXPY_ROWS <= rows; r += AXPY_ROWS)
    axpy_rows<AXPY_ROWS>(p + r * at.row, at, b, ldb, inner, cols, y + r * ldy, ldy, add);
  p += r * at.row;
  y += r * ldy;
  switch (rows - r) {
    case 1: axpy_rows<1>(p, at, b, ldb, inner, cols, y, ldy, add); break;
    case 2: axpy_rows<2>(p, at, b, ldb, inner, cols, y, ldy, add); break;
    case 3: axpy_rows<3>(p, at, b, ldb, inner, cols, y, ldy, add); break;
    case 4: axpy_rows<4>(p, at, b, ldb, inner, cols, y, ldy, add); break;
    case 5: axpy_rows<5>(p, at, b, ldb, inner, cols, y, ldy, add); break;
  }
}

}  // namespace

template <class T>
void dot_block(const float* x, index_t ldx, index_t rows, const T* w, index_t ldw, index_t outs,
               index_t inner, float* y, index_t ldy, bool add) {
  for (index_t r = 0; r < rows; r += ROW_BLOCK) {
    int height = int(std::min<index_t>(ROW_BLOCK, rows - r));
    float* yr = y + r * ldy;
    for (index_t k = 0; k < inner || k == 0; k += CHUNK) {
      const float* xk = x + r * ldx + k;
      const T* wk = w + k;
      int depth = int(std::min<index_t>(CHUNK, inner - k));
      index_t o = 0;
      if (height == 1)  // enough sums in flight to hide the latency of the multiply-add
        for (; o + 8 <= outs; o += 8)
          dot_tile<1, 8>(xk, ldx, wk + o * ldw, ldw, depth, yr + o, ldy, add || k > 0);
      for (; o + 4 <= outs; o += 4)
        dot_outputs<4>(xk, ldx, height, wk + o * ldw, ldw, depth, yr + o, ldy, add || k > 0);
      for (; o < outs; o++)
        dot_outputs<1>(xk, ldx, height, wk + o * ldw, ldw, depth, yr + o, ldy, add || k > 0);
    }
  }
}

template <class T>
void axpy_block(const float* p, index_t ldp, index_t rows, const T* b, index_t ldb, int inner, int cols,
                float* y, index_t ldy, bool add) {
  axpy_all(p, {ldp, 1}, rows, b, ldb, inner, cols, y, ldy, add);
}

void axpy_turned(const float* p, index_t ldp, index_t rows, const float* b, index_t ldb, int inner, int cols,
                 float* y, index_t ldy, bool add) {
  axpy_all(p, {1, ldp}, rows, b, ldb, inner, cols, y, ldy, add);
}

template void dot_block(const float*, index_t, index_t, const float*, index_t, index_t, index_t, float*,
                        index_t, bool);
template void dot_block(const float*, index_t, index_t, const bf16*, index_t, index_t, index_t, float*,
                        index_t, bool);
template void axpy_block(const float*, index_t, index_t, const float*, index_t, int, int, float*, index_t,
                         bool);
template void axpy_block(const float*, index_t, index_t, const bf16*, index_t, int, int, float*, index_t,
                         bool);
