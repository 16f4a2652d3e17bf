// What the Python side asks of the library itself: version, exponential, measured limits.
#include "api.h"
#include "threads.h"

// Raised with every change of a signature: an object built from other sources is not used.
INGLE_API int ingle_abi_version() { return 10; }

// The vector exponential, exported so that it can be tested over the full range.
INGLE_API void ingle_exp(const float* x, index_t n, float* y) {
  for (index_t i = 0; i < n; i += VEC) {
    int part = int(std::min<index_t>(VEC, n - i));
    store_part(y + i, exp(load_part(x + i, part)), part);
  }
}

// Multiply-adds from registers alone: the limit of every product. Returns how many were done.
INGLE_API double ingle_probe_fma(int threads, index_t steps, float* sink) {
  constexpr int CHAINS = 10;
  parallel_for(threads, threads, [&](index_t item, int) {
    vf acc[CHAINS] = {}, a = splat(sink[0]), b = splat(sink[1]);
    for (index_t i = 0; i < steps; i++)
      for (int c = 0; c < CHAINS; c++) acc[c] = fma(a, acc[c], b);
    vf all = {};
    for (int c = 0; c < CHAINS; c++) all += acc[c];
    sink[2 + item] = sum(all);
  });
  return double(steps) * CHAINS * VEC * threads;
}

// Read n floats once, eight streams at a time: the limit of every product with a single row.
INGLE_API void ingle_probe_read(int threads, const float* x, index_t n, float* sink) {
  constexpr int STREAMS = 8;
  Pieces pieces(n, STREAMS * 1024, threads);
  parallel_for(threads, pieces.count, [&](index_t item, int) {
    index_t each = (pieces.end(item) - pieces.begin(item)) / STREAMS;
    const float* from = x + pieces.begin(item);
    vf acc[STREAMS] = {};
    for (index_t i = 0; i + VEC <= each; i += VEC)
      for (int s = 0; s < STREAMS; s++) acc[s] += load(from + s * each + i);
    vf all = {};
    for (int s = 0; s < STREAMS; s++) all += acc[s];
    sink[2 + item] = sum(all);
  });
}
