// SwiGLU feed-forward, dense and as chosen experts.
#include <vector>

#include "api.h"
#include "operand.h"
#include "threads.h"

namespace {

constexpr int OUTS = 64;  // hidden values computed at a time: gate and up stay in the first cache

// hidden[r][f] = silu(x gate) * (x up) for `count` rows from `row` on and f from begin to end; up
// may lie `up_at` outputs further in the same weight. hidden points to the first of these rows.
void swiglu(const Operand& x, index_t row, index_t count, const Weight& gate, const Weight& up,
            index_t up_at, index_t begin, index_t end, float* hidden, index_t ld) {
  alignas(64) float g[ROW_BLOCK * OUTS], u[ROW_BLOCK * OUTS];
  for (index_t r = 0; r < count; r += ROW_BLOCK) {
    index_t height = std::min<index_t>(ROW_BLOCK, count - r);
    for (index_t o = begin; o < end; o += OUTS) {
      int outs = int(std::min<index_t>(OUTS, end - o));
      x.times(gate, row + r, height, o, outs, g, OUTS);
      x.times(up, row + r, height, up_at + o, outs, u, OUTS);
      for (index_t n = 0; n < height; n++) {
        float* to = hidden + (r + n) * ld + o;
        for (int i = 0; i < outs; i += VEC) {
          int part = std::min(VEC, outs - i);
          const float *gi = g + n * OUTS + i, *ui = u + n * OUTS + i;
          store_part(to + i, silu(load_part(gi, part)) * load_part(ui, part), part);
        }
      }
    }
  }
}

void mlp(const MlpArgs& a) {
  Scratch hidden(a.rows * a.inner);
  int threads = threads_for(3.0 * a.rows * a.width * a.inner);
  Pieces f(a.inner, 8, threads), d(a.width, 8, threads);
  Operand x(a.x, a.rows, a.width);
  x.prepare(a.gate, threads);
  x.prepare(a.up, threads);
  parallel_for(threads, f.count, [&](index_t i, int) {
    swiglu(x, 0, a.rows, a.gate, a.up, 0, f.begin(i), f.end(i), hidden, a.inner);
  });
  Operand h(hidden, a.rows, a.inner);
  h.prepare(a.down, threads);
  parallel_for(threads, d.count, [&](index_t i, int) {
    h.times(a.down, 0, a.rows, d.begin(i), d.end(i) - d.begin(i), a.y + d.begin(i), a.width);
  });
}

struct Plan {
  std::vector<index_t> first;   // expert -> its first place among the sorted rows
  std::vector<index_t> place;   // choice n * K + k -> place
  std::vector<index_t> active;  // experts with rows
};

// Sort choices by expert, keeping the order of rows; false when an id is out of range.
bool sort_by_expert(const int* ids, index_t choices, index_t experts, Plan& plan) {
  plan.first.assign(experts + 1, 0);
  for (index_t i = 0; i < choices; i++) {
    if (ids[i] < 0 || ids[i] >= experts) return false;
    plan.first[ids[i] + 1]++;
  }
  for (index_t e = 0; e < experts; e++) {
    if (plan.first[e + 1]) plan.active.push_back(e);
    plan.first[e + 1] += plan.first[e];
  }
  std::vector<index_t> next(plan.first.begin(), plan.first.end() - 1);
  plan.place.resize(choices);
  for (index_t i = 0; i < choices; i++) plan.place[i] = next[ids[i]]++;
  return true;
}

void experts_over(const ExpertsArgs& a, const Plan& plan) {
  index_t choices = a.rows * a.top_k, width = a.width, inner = a.inner;
  Scratch sorted(choices * width), hidden(choices * inner), parts(choices * width);
  for (index_t i = 0; i < choices; i++)
    std::memcpy(sorted + plan.place[i] * width, a.x + i / a.top_k * width, width * sizeof(float));
  int threads = threads_for(3.0 * choices * width * inner);
  Pieces f(inner, OUTS, threads), d(width, OUTS, threads), n(a.rows, 1, threads);
  index_t active = index_t(plan.active.size());
  Operand x(sorted, choices, width);
  x.prepare(a.gate_up, threads);
  parallel_for(threads, active * f.count, [&](index_t item, int) {
    index_t e = plan.active[item / f.count], i = item % f.count, at = plan.first[e];
    Weight both = expert_of(a.gate_up, e, 2 * inner, width);
    swiglu(x, at, plan.first[e + 1] - at, both, both, inner, f.begin(i), f.end(i), hidden + at * inner, inner);
  });
  Operand h(hidden, choices, inner);
  h.prepare(a.down, threads);
  parallel_for(threads, active * d.count, [&](index_t item, int) {
    index_t e = plan.active[item / d.count], i = item % d.count, at = plan.first[e];
    h.times(expert_of(a.down, e, width, inner), at, plan.first[e + 1] - at, d.begin(i),
            d.end(i) - d.begin(i), parts + at * width + d.begin(i), width);
  });
  parallel_for(threads, n.count, [&](index_t i, int) {
    for (index_t c = n.begin(i) * a.top_k; c < n.end(i) * a.top_k; c++) {
      const float* part = parts + plan.place[c] * width;
      float* to = a.y + c / a.top_k * width;
      for (index_t v = 0; v < width; v++) to[v] = (c % a.top_k ? to[v] : 0.0f) + a.weights[c] * part[v];
    }
  });
}

}  // namespace

INGLE_API int ingle_mlp(const MlpArgs* a) {
  return guarded([&] {
    mlp(*a);
    return int(OK);
  });
}

INGLE_API int ingle_experts(const ExpertsArgs* a) {
  return guarded([&] {
    Plan plan;
    if (!sort_by_expert(a->ids, a->rows * a->top_k, a->experts, plan)) return int(OUT_OF_RANGE);
    experts_over(*a, plan);
    return int(OK);
  });
}
