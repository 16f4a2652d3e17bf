// SwiGLU feed-forward, dense and as chosen experts.
#include <vector>

#include "api.h"
#include "block.h"
#include "threads.h"

namespace {

constexpr int OUTS = 64;  // hidden values computed at a time: gate and up stay in the first cache

// hidden[r][f] = silu(x gate) * (x up) for f from begin to end.
template <class T>
void swiglu(const float* x, index_t rows, index_t width, const T* gate, const T* up,
            index_t begin, index_t end, float* hidden, index_t ld) {
  alignas(64) float g[ROW_BLOCK * OUTS], u[ROW_BLOCK * OUTS];
  for (index_t r = 0; r < rows; r += ROW_BLOCK) {
    index_t height = std::min<index_t>(ROW_BLOCK, rows - r);
    const float* xr = x + r * width;
    for (index_t o = begin; o < end; o += OUTS) {
      int outs = int(std::min<index_t>(OUTS, end - o));
      dot_block(xr, width, height, gate + o * width, width, outs, width, g, OUTS);
      dot_block(xr, width, height, up + o * width, width, outs, width, u, OUTS);
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

template <class T>
void mlp(const float* x, index_t rows, index_t width, const T* gate, const T* up, const T* down,
         index_t inner, float* y) {
  Scratch hidden(rows * inner);
  int threads = threads_for(3.0 * rows * width * inner);
  Pieces f(inner, 8, threads), d(width, 8, threads);
  parallel_for(threads, f.count, [&](index_t i, int) {
    swiglu(x, rows, width, gate, up, f.begin(i), f.end(i), hidden, inner);
  });
  parallel_for(threads, d.count, [&](index_t i, int) {
    dot_block(hidden, inner, rows, down + d.begin(i) * inner, inner, d.end(i) - d.begin(i), inner,
              y + d.begin(i), width);
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

template <class T>
void experts_over(const float* x, index_t rows, index_t width, const Plan& plan, const float* weights,
                  index_t top_k, const T* gate_up, const T* down, index_t inner, float* y) {
  index_t choices = rows * top_k;
  Scratch sorted(choices * width), hidden(choices * inner), parts(choices * width);
  for (index_t i = 0; i < choices; i++)
    std::memcpy(sorted + plan.place[i] * width, x + i / top_k * width, width * sizeof(float));
  int threads = threads_for(3.0 * choices * width * inner);
  Pieces f(inner, OUTS, threads), d(width, OUTS, threads), n(rows, 1, threads);
  index_t active = index_t(plan.active.size());
  parallel_for(threads, active * f.count, [&](index_t item, int) {
    index_t e = plan.active[item / f.count], i = item % f.count, at = plan.first[e];
    const T* gate = gate_up + e * 2 * inner * width;
    swiglu(sorted + at * width, plan.first[e + 1] - at, width, gate, gate + inner * width, f.begin(i),
           f.end(i), hidden + at * inner, inner);
  });
  parallel_for(threads, active * d.count, [&](index_t item, int) {
    index_t e = plan.active[item / d.count], i = item % d.count, at = plan.first[e];
    const T* from = down + (e * width + d.begin(i)) * inner;
    dot_block(hidden + at * inner, inner, plan.first[e + 1] - at, from, inner, d.end(i) - d.begin(i),
              inner, parts + at * width + d.begin(i), width);
  });
  parallel_for(threads, n.count, [&](index_t i, int) {
    for (index_t c = n.begin(i) * top_k; c < n.end(i) * top_k; c++) {
      const float* part = parts + plan.place[c] * width;
      float* to = y + c / top_k * width;
      for (index_t v = 0; v < width; v++) to[v] = (c % top_k ? to[v] : 0.0f) + weights[c] * part[v];
    }
  });
}

}  // namespace

INGLE_API int ingle_mlp(const MlpArgs* a) {
  return guarded([&] {
    with_type(a->bf16, a->gate, [&](auto* gate) {
      using Weights = decltype(gate);
      auto up = static_cast<Weights>(a->up), down = static_cast<Weights>(a->down);
      mlp(a->x, a->rows, a->width, gate, up, down, a->inner, a->y);
    });
    return int(OK);
  });
}

INGLE_API int ingle_experts(const ExpertsArgs* a) {
  return guarded([&] {
    Plan plan;
    if (!sort_by_expert(a->ids, a->rows * a->top_k, a->experts, plan)) return int(OUT_OF_RANGE);
    with_type(a->bf16, a->gate_up, [&](auto* gate_up) {
      auto down = static_cast<decltype(gate_up)>(a->down);
      experts_over(a->x, a->rows, a->width, plan, a->weights, a->top_k, gate_up, down, a->inner, a->y);
    });
    return int(OK);
  });
}
