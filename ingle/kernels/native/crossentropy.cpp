// Cross-entropy of a head's logits, and its gradient, without the logits in memory.
//
//     total = sum over rows with a target of  log(sum_v exp(x w_v)) - x w_target
//
// A block of rows goes through the head, the softmax and both products of the gradient while its
// logits stay in the cache. Rows are divided into LANES, each of which sums a gradient of the weight
// of its own, one block after the other: so nothing depends on the threads.
//
// Legend: D width, V vocabulary.
#include <numeric>
#include <vector>

#include "api.h"
#include "panels.h"
#include "threads.h"

namespace {

constexpr index_t BLOCK = 96;

// logits -> d(loss)/d(logits); returns the loss.
float slope(float* logits, index_t V, index_t target) {
  float wanted = logits[target], rest = 0.0f;
  index_t whole = V / VEC * VEC, v;
  vf top = splat(wanted), total = {};
  for (v = 0; v < whole; v += VEC) top = max(load(logits + v), top);
  float best = largest(top);
  for (; v < V; v++) best = std::max(best, logits[v]);
  for (v = 0; v < whole; v += VEC) {
    vf e = exp(load(logits + v) - best);
    store(logits + v, e);
    total += e;
  }
  for (; v < V; v++) rest += logits[v] = exp(splat(logits[v] - best))[0];
  float all = sum(total) + rest, factor = 1.0f / all;
  for (v = 0; v < V; v++) logits[v] *= factor;
  logits[target] -= 1.0f;
  return best + std::log(all) - wanted;
}

struct Lane {
  const CrossEntropyArgs& a;
  const float *turned, *straight;  // the head, packed for its product and for that of the gradient
  float* weight_grad;

  // The loss of rows of the list from i0 to i1.
  double operator()(const std::vector<index_t>& rows, index_t i0, index_t i1) const {
    index_t D = a.width, V = a.vocabulary;
    Scratch logits(BLOCK * V), strips(strips_size(BLOCK, V)), x(packed_size(BLOCK, D));
    double total = 0;
    if (a.learns && i0 == i1) std::fill(weight_grad, weight_grad + V * D, 0.0f);
    for (index_t i = i0; i < i1; i += BLOCK) {
      index_t count = std::min(BLOCK, i1 - i);
      const float *from[BLOCK], *slopes[BLOCK];
      float *lines[BLOCK], *to[BLOCK];
      for (index_t r = 0; r < count; r++) {
        from[r] = a.x + rows[i + r] * D;
        to[r] = a.x_grad + rows[i + r] * D;
        slopes[r] = lines[r] = logits + r * V;
      }
      times_packed(from, count, turned, D, V, lines, nullptr, false);
      for (index_t r = 0; r < count; r++) {
        total += slope(lines[r], V, a.targets[rows[i + r]]);
        if (!a.learns) continue;
        strip_row(lines[r], 1.0f, r, count, V, strips);
        pack_row(from[r], r, count, D, x);
      }
      times_packed(slopes, count, straight, V, D, to, nullptr, false);
      if (a.learns) outer(in_strips(strips, count), V, in_panels(x, count), count, D, weight_grad, D, i > i0);
    }
    return total;
  }
};

int cross_entropy(const CrossEntropyArgs& a) {
  index_t D = a.width, V = a.vocabulary;
  std::vector<index_t> rows;
  for (index_t n = 0; n < a.rows; n++) {
    if (a.targets[n] >= V) return OUT_OF_RANGE;
    if (a.targets[n] >= 0)
      rows.push_back(n);
    else
      std::fill(a.x_grad + n * D, a.x_grad + (n + 1) * D, 0.0f);
  }
  Scratch turned(packed_size(D, V)), straight(packed_size(V, D)), parts(a.learns ? LANES * V * D : 0);
  pack_turned(a.weight, D, D, V, turned);
  pack(a.weight, D, V, D, straight);
  index_t count = index_t(rows.size());
  int threads = threads_for(3.0 * double(count) * double(D * V));
  double totals[LANES];
  parallel_for(threads, LANES, [&](index_t i, int) {
    totals[i] = Lane{a, turned, straight, parts + i * V * D}(rows, i * count / LANES, (i + 1) * count / LANES);
  });
  *a.total = float(std::accumulate(totals, totals + LANES, 0.0));
  if (a.learns) add_lanes(parts, V * D, V * D, a.weight_grad);
  return OK;
}

}  // namespace

INGLE_API int ingle_cross_entropy(const CrossEntropyArgs* a) {
  return guarded([&] { return cross_entropy(*a); });
}
