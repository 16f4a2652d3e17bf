// See panels.h.
#include "panels.h"

#include <algorithm>
#include <type_traits>
#include <vector>

#if defined(__clang__)
#define UNROLL _Pragma("unroll")
#define UNROLL_SUMS _Pragma("unroll 4")
#else
#define UNROLL _Pragma("GCC unroll 8")
#define UNROLL_SUMS _Pragma("GCC unroll 4")
#endif

namespace {

constexpr int V = PANEL / VEC;
constexpr index_t DEPTH = 256;  // summed values per pass: a panel of them stays in the first cache
constexpr index_t BLOCK = 96;   // rows per pass: their share of a stays in the second cache

typedef vf Sums[V];

// sums[r] = sum_t a(r, t) * b[t * step] over one panel; `a` says where the factors of a row lie.
template <int R, class At>
[[gnu::always_inline]] inline void accumulate(At a, const float* b, index_t step, index_t k, Sums (&sums)[R]) {
  UNROLL
  for (int r = 0; r < R; r++)
    UNROLL
    for (int v = 0; v < V; v++) sums[r][v] = vf{};
  UNROLL_SUMS
  for (index_t t = 0; t < k; t++, b += step) {
    vf x[V];
    UNROLL
    for (int v = 0; v < V; v++) x[v] = load(b + v * VEC);
    UNROLL
    for (int r = 0; r < R; r++) {
      vf f = splat(a(r, t));
      UNROLL
      for (int v = 0; v < V; v++) sums[r][v] = fma(f, x[v], sums[r][v]);
    }
  }
}

// y[c] (+)= factor * sums for the first `cols` of a panel's columns; rounded twice, so that a sum over the
// experts of a token is the same where each of them is computed elsewhere.
template <bool ADD>
[[gnu::always_inline]] inline void give(const Sums& sums, float factor, float* y, int cols) {
  UNROLL
  for (int v = 0; v < V; v++) {
    float* to = y + v * VEC;
    int part = cols - v * VEC;
    vf scaled = splat(factor) * sums[v];
    if (part >= VEC)
      store(to, ADD ? load(to) + scaled : scaled);
    else if (part > 0)
      store_part(to, ADD ? load_part(to, part) + scaled : scaled, part);
  }
}

template <int R, bool ADD>
inline void rows_block(const float* const* a, index_t t0, const float* b, index_t k, float* const* y,
                       const float* factors, index_t column, int cols) {
  Sums sums[R];
  const float* row[R];
  UNROLL
  for (int r = 0; r < R; r++) {
    row[r] = a[r] + t0;
    __builtin_prefetch(y[r] + column, 1);  // there once the sums are
  }
  accumulate<R>([&](int r, index_t t) { return row[r][t]; }, b, PANEL, k, sums);
  UNROLL
  for (int r = 0; r < R; r++) give<ADD>(sums[r], factors[r], y[r] + column, cols);
}

template <int R, bool ADD>
inline void outer_block(Factor a, Factor b, index_t k, float* y, index_t ld, int cols) {
  Sums sums[R];
  UNROLL
  for (int r = 0; r < R; r++) __builtin_prefetch(y + r * ld, 1);
  accumulate<R>([&](int r, index_t t) { return a.data[t * a.step + r]; }, b.data, b.step, k, sums);
  UNROLL
  for (int r = 0; r < R; r++) give<ADD>(sums[r], 1.0f, y + r * ld, cols);
}

// Call body<R>() for a height that only the run time knows.
template <class Body>
inline void with_height(index_t height, Body body) {
  static_assert(STRIP == 6, "the cases below");
  switch (height) {
    case 1: return body(std::integral_constant<int, 1>{});
    case 2: return body(std::integral_constant<int, 2>{});
    case 3: return body(std::integral_constant<int, 3>{});
    case 4: return body(std::integral_constant<int, 4>{});
    case 5: return body(std::integral_constant<int, 5>{});
    default: return body(std::integral_constant<int, 6>{});
  }
}

}  // namespace

void pack_row(const float* from, index_t t, index_t k, index_t n, float* to) {
  to += t * PANEL;
  index_t c = 0;
  for (; c + PANEL <= n; c += PANEL, to += k * PANEL)
    UNROLL
    for (int v = 0; v < V; v++) store(to + v * VEC, load(from + c + v * VEC));
  if (c < n)
    for (int i = 0; i < PANEL; i++) to[i] = c + i < n ? from[c + i] : 0.0f;
}

void pack(const float* from, index_t ld, index_t k, index_t n, float* to) {
  for (index_t t = 0; t < k; t++) pack_row(from + t * ld, t, k, n, to);
}

void pack_turned(const float* from, index_t ld, index_t k, index_t n, float* to) {
  for (index_t c = 0; c < n; c += PANEL, to += k * PANEL)
    for (int i = 0; i < PANEL; i += 4) {
      const float* line = from + (c + i) * ld;
      index_t t = 0;
      if (c + i + 4 <= n)
        for (; t + 4 <= k; t += 4) transpose4(line + t, ld, to + t * PANEL + i, PANEL);
      for (; t < k; t++)
        for (int j = i; j < i + 4; j++) to[t * PANEL + j] = c + j < n ? from[(c + j) * ld + t] : 0.0f;
    }
}

void strip_row(const float* from, float factor, index_t t, index_t k, index_t m, float* to) {
  typedef float v8 __attribute__((vector_size(32)));
  static_assert(STRIP <= 8 && STRIP + 2 >= 8, "a vector holds a strip and ends within the gap after the last");
  to += t * STRIP;
  index_t i = 0;
  for (; i + 8 <= m; i += STRIP, to += strip_floats(k)) {
    v8 v;
    std::memcpy(&v, from + i, sizeof v);
    v *= factor;
    std::memcpy(to, &v, sizeof v);
  }
  for (; i < m; i += STRIP, to += strip_floats(k))
    for (index_t j = 0; j < std::min<index_t>(STRIP, m - i); j++) to[j] = factor * from[i + j];
}

template <bool ADD>
void times_panels(const float* const* a, index_t rows, index_t t0, index_t depth, const float* packed, index_t k,
                  index_t n, float* const* y, const float* factors) {
  for (index_t c = 0; c < n; c += PANEL) {
    int cols = int(std::min<index_t>(PANEL, n - c));
    const float *b = packed + c * k + t0 * PANEL, *next = b + PANEL * k;
    index_t part = depth * PANEL / ((rows + STRIP - 1) / STRIP);  // of the next panel, asked for with each strip
    for (index_t r = 0; r < rows; r += STRIP, next += part) {
      ask(next, part);
      with_height(std::min<index_t>(STRIP, rows - r), [&](auto height) {
        rows_block<height(), ADD>(a + r, t0, b, depth, y + r, factors + r, c, cols);
      });
    }
  }
}

void times_packed(const float* const* a, index_t rows, const float* packed, index_t k, index_t n,
                  float* const* y, const float* factors, bool add) {
  std::vector<float> ones(factors ? 0 : BLOCK, 1.0f);
  for (index_t t0 = 0; t0 < k; t0 += DEPTH) {
    index_t depth = std::min(DEPTH, k - t0);
    for (index_t r = 0; r < rows; r += BLOCK) {
      index_t count = std::min(BLOCK, rows - r);
      const float* by = factors ? factors + r : ones.data();
      if (add || t0)
        times_panels<true>(a + r, count, t0, depth, packed, k, n, y + r, by);
      else
        times_panels<false>(a + r, count, t0, depth, packed, k, n, y + r, by);
    }
  }
}

template <bool ADD>
void outer_panels(Factor a, index_t m, Factor b, index_t k, index_t n, float* y, index_t ld) {
  for (index_t c = 0; c < n; c += PANEL, b.data += b.next) {
    int cols = int(std::min<index_t>(PANEL, n - c));
    Factor strip = a;
    for (index_t i = 0; i < m; i += STRIP, strip.data += strip.next)
      with_height(std::min<index_t>(STRIP, m - i), [&](auto height) {
        outer_block<height(), ADD>(strip, b, k, y + i * ld + c, ld, cols);
      });
  }
}

void outer(Factor a, index_t m, Factor b, index_t k, index_t n, float* y, index_t ld, bool add) {
  add ? outer_panels<true>(a, m, b, k, n, y, ld) : outer_panels<false>(a, m, b, k, n, y, ld);
}

void add_lanes(const float* sums, index_t stride, index_t n, float* total) {
  std::copy(sums, sums + n, total);
  for (index_t lane = 1; lane < LANES; lane++)
    for (index_t i = 0; i < n; i++) total[i] += sums[lane * stride + i];
}
