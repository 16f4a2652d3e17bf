// SwiGLU feed-forward as training runs it, dense or as the experts of a mixture, and its gradients.
//
//     y[n] = sum_k w[n][k] * down_e( silu(gate_e x[n]) * up_e x[n] ),  e = ids[n][k]
//
// Tokens are taken in blocks whose rows stay in the second cache, and in a block one expert after the
// other: between the products nothing goes through memory but what the gradient needs, the gate and up
// values of every choice. Weights are packed once per call. The gradients of x and of the weights w
// are computed in the same blocks, those of the matrices after them, expert by expert. Nothing that
// is summed depends on how the work is shared.
//
// Legend: D width, F inner, J = 2F, a choice is n * top_k + k.
#include <vector>

#include "api.h"
#include "panels.h"
#include "threads.h"

namespace {

constexpr index_t BLOCK_FLOATS = 48 * 1024;  // of x in a block of tokens
constexpr index_t DEPTH = 184;  // choices per pass of the matrices' gradients: panels so apart share no set

typedef std::vector<index_t> Choices;

// Choices of tokens n0 to n1, by expert, in order.
std::vector<Choices> choices_of(const FeedForward& f, index_t n0, index_t n1) {
  std::vector<Choices> found(f.experts);
  for (index_t c = n0 * f.top_k; c < n1 * f.top_k; c++) found[f.ids[c]].push_back(c);
  return found;
}

// Whether these are every token of the block, once: an MLP.
bool takes_all(const FeedForward& f, const Choices& choices, index_t n0, index_t n1) {
  if (index_t(choices.size()) != n1 - n0) return false;
  for (index_t i = 0; i < n1 - n0; i++)
    if (choices[i] / f.top_k != n0 + i) return false;
  return true;
}

bool in_range(const FeedForward& f) {
  for (index_t c = 0; c < f.rows * f.top_k; c++)
    if (f.ids[c] < 0 || f.ids[c] >= f.experts) return false;
  return true;
}

double work_of(const FeedForward& f) { return 3.0 * double(f.rows * f.top_k) * double(f.width * f.inner); }

// of(0), of(1), ... as an array.
template <class T, class Of>
std::vector<T> list(index_t count, Of of) {
  std::vector<T> found(count);
  for (index_t i = 0; i < count; i++) found[i] = of(i);
  return found;
}

// body(i, part) for every vector of n values; part is less than VEC for the last one of some.
template <class Body>
inline void each_vector(index_t n, Body body) {
  index_t i = 0;
  for (; i + VEC <= n; i += VEC) body(i, VEC);
  if (i < n) body(i, int(n - i));
}
inline vf load_some(const float* p, int part) { return part == VEC ? load(p) : load_part(p, part); }
inline void store_some(float* p, vf v, int part) { part == VEC ? store(p, v) : store_part(p, v, part); }

// Pointers to the rows of choices, or with top_k to those of their tokens.
template <class T>
std::vector<T*> rows(T* first, const Choices& choices, index_t width, index_t top_k = 1) {
  return list<T*>(index_t(choices.size()), [&](index_t i) { return first + choices[i] / top_k * width; });
}
template <class T>
Ahead::Rows fetched(const std::vector<T*>& rows, index_t floats) {
  return {rows.data(), index_t(rows.size()), floats};
}

// An expert's turn in a block of tokens: the choices that fell on it, and those of the next turn. Rows an
// expert was chosen for lie anywhere, so each turn asks for the next one's.
struct Turn {
  index_t expert;
  const Choices &mine, &later;
  bool adds;  // to what others left in the sums, else it writes them
};

// Call body(turn, values [choices of the block, F]) for all turns. sums: rows that they add to.
template <class Body>
void for_each_turn(const FeedForward& f, int threads, float* sums, Body body) {
  index_t size = std::max<index_t>(48, BLOCK_FLOATS / f.width);
  parallel_for(threads, (f.rows + size - 1) / size, [&](index_t b, int) {
    index_t n0 = b * size, n1 = std::min(f.rows, n0 + size);
    Scratch values((n1 - n0) * f.top_k * f.inner);
    auto choices = choices_of(f, n0, n1);
    choices.emplace_back();  // some of the next block's: whose they are is not known yet
    for (index_t c = n1 * f.top_k; c < std::min(n1 * f.top_k + 96, f.rows * f.top_k); c++) choices.back().push_back(c);
    bool whole = takes_all(f, choices[0], n0, n1);
    if (!whole) std::fill(sums + n0 * f.width, sums + n1 * f.width, 0.0f);
    for (index_t e = 0; e < f.experts; e++) body(Turn{e, choices[e], choices[e + 1], e > 0 || !whole}, values);
  });
}

// h = silu(gate) * up
void activate(const float* pre, index_t inner, float* h) {
  each_vector(inner, [&](index_t i, int part) {
    store_some(h + i, silu(load_some(pre + i, part)) * load_some(pre + inner + i, part), part);
  });
}

// h again, and the gradients of gate and up from that of h, which is h_grad * w; returns sum(h * h_grad),
// the gradient of w.
float activate_grad(const float* pre, const float* h_grad, float w, index_t inner, float* h, float* pre_grad) {
  vf total = {};
  each_vector(inner, [&](index_t i, int part) {
    vf gate = load_some(pre + i, part), up = load_some(pre + inner + i, part), d = load_some(h_grad + i, part);
    vf s = sigmoid(gate), activated = gate * s;
    store_some(h + i, activated * up, part);
    total = fma(activated * up, d, total);
    d = d * w;
    store_some(pre_grad + i, d * up * (s + activated * (1.0f - s)), part);
    store_some(pre_grad + inner + i, d * activated, part);
  });
  return sum(total);
}

// Two factors of every expert, packed side by side.
struct Packed {
  index_t first, both;  // floats
  Scratch memory;
  Packed(const FeedForward& f, index_t first, index_t second)
      : first(first), both(first + second), memory(f.experts * both) {}
  float* operator[](index_t e) const { return memory + e * both; }
};

void forward(const FeedForwardArgs& a) {
  const FeedForward& f = a.common;
  index_t D = f.width, F = f.inner, J = 2 * F;
  int threads = threads_for(work_of(f));
  Packed packed(f, packed_size(D, J), packed_size(F, D));
  parallel_for(threads, f.experts, [&](index_t e, int) {
    pack_turned(f.gate_up + e * J * D, D, D, J, packed[e]);
    pack_turned(f.down + e * D * F, F, F, D, packed[e] + packed.first);
  });
  for_each_turn(f, threads, a.y, [&](const Turn& turn, float* hidden) {
    const float* both = packed[turn.expert];
    index_t count = index_t(turn.mine.size());
    auto x = rows(f.x, turn.mine, D, f.top_k), next_x = rows(f.x, turn.later, D, f.top_k);
    auto pre = rows(a.pre, turn.mine, J), next_pre = rows(a.pre, turn.later, J);
    times_packed(x.data(), count, both, D, J, pre.data(), nullptr, false, {{fetched(next_x, D)}});
    for (index_t i = 0; i < count; i++) activate(pre[i], F, hidden + i * F);
    auto h = list<const float*>(count, [&](index_t i) { return hidden + i * F; });
    auto y = rows(a.y, turn.mine, D, f.top_k);
    auto w = list<float>(count, [&](index_t i) { return f.weights[turn.mine[i]]; });
    times_packed(h.data(), count, both + packed.first, F, D, y.data(), w.data(), turn.adds,
                 {{fetched(next_pre, J)}});
  });
}

// Gradients of x and w; what the matrices' need: h, and gradients of gate and up.
void backward_rows(const FeedForwardGradArgs& a, float* hidden, float* pre_grad, int threads) {
  const FeedForward& f = a.common;
  index_t D = f.width, F = f.inner, J = 2 * F;
  Packed packed(f, packed_size(D, F), packed_size(J, D));
  parallel_for(threads, f.experts, [&](index_t e, int) {
    pack(f.down + e * D * F, F, D, F, packed[e]);
    pack(f.gate_up + e * J * D, D, J, D, packed[e] + packed.first);
  });
  for_each_turn(f, threads, a.x_grad, [&](const Turn& turn, float* h_grad) {
    const float* both = packed[turn.expert];
    index_t count = index_t(turn.mine.size());
    auto y = rows(a.y_grad, turn.mine, D, f.top_k), next_y = rows(a.y_grad, turn.later, D, f.top_k);
    auto pre = rows(a.pre, turn.mine, J);
    auto grad = rows(pre_grad, turn.mine, J), act = rows(hidden, turn.mine, F);
    auto h = list<float*>(count, [&](index_t i) { return h_grad + i * F; });
    times_packed(y.data(), count, both, D, F, h.data(), nullptr, false,
                 {{fetched(pre, J), fetched(grad, J), fetched(act, F)}});
    for (index_t i = 0; i < count; i++) {
      index_t c = turn.mine[i];
      a.weights_grad[c] = activate_grad(pre[i], h[i], f.weights[c], F, act[i], grad[i]);
    }
    auto x = rows(a.x_grad, turn.mine, D, f.top_k);
    times_packed(grad.data(), count, both + packed.first, J, D, x.data(), nullptr, turn.adds, {{fetched(next_y, D)}});
  });
}

// Gradients of an expert's matrices: sums over its choices, DEPTH at a time.
void backward_matrices(const FeedForwardGradArgs& a, const float* hidden, const float* pre_grad, index_t e,
                       const Choices& mine) {
  const FeedForward& f = a.common;
  index_t D = f.width, F = f.inner, J = 2 * F, count = index_t(mine.size());
  float *gate_up = a.gate_up_grad + e * J * D, *down = a.down_grad + e * D * F;
  if (!count) {
    std::fill(gate_up, gate_up + J * D, 0.0f);
    std::fill(down, down + D * F, 0.0f);
  }
  Scratch x(packed_size(DEPTH, D)), h(packed_size(DEPTH, F));
  Scratch pre_strips(strips_size(DEPTH, J)), y_strips(strips_size(DEPTH, D));
  for (index_t i0 = 0; i0 < count; i0 += DEPTH) {
    index_t k = std::min(DEPTH, count - i0);
    for (index_t t = 0; t < k; t++) {
      index_t c = mine[i0 + t], n = c / f.top_k;
      pack_row(f.x + n * D, t, k, D, x);
      pack_row(hidden + c * F, t, k, F, h);
      strip_row(pre_grad + c * J, 1.0f, t, k, J, pre_strips);
      strip_row(a.y_grad + n * D, f.weights[c], t, k, D, y_strips);
    }
    index_t i1 = i0 + k;
    Choices later(mine.begin() + i1, mine.begin() + std::min(count, i1 + DEPTH));
    auto next_x = rows(f.x, later, D, f.top_k), next_y = rows(a.y_grad, later, D, f.top_k);
    auto next_pre = rows(pre_grad, later, J), next_h = rows(hidden, later, F);
    outer(pre_strips, J, x, k, D, gate_up, D, i0 > 0, {{fetched(next_x, D), fetched(next_pre, J)}});
    outer(y_strips, D, h, k, F, down, F, i0 > 0, {{fetched(next_y, D), fetched(next_h, F)}});
  }
}

}  // namespace

INGLE_API int ingle_feed_forward(const FeedForwardArgs* a) {
  return guarded([&] {
    if (!in_range(a->common)) return int(OUT_OF_RANGE);
    forward(*a);
    return int(OK);
  });
}

INGLE_API int ingle_feed_forward_grad(const FeedForwardGradArgs* a) {
  return guarded([&] {
    const FeedForward& f = a->common;
    if (!in_range(f)) return int(OUT_OF_RANGE);
    int threads = threads_for(2 * work_of(f));
    index_t choices = f.rows * f.top_k;
    Scratch hidden(choices * f.inner), pre_grad(choices * 2 * f.inner);
    backward_rows(*a, hidden, pre_grad, threads);
    if (!a->learns) return int(OK);
    auto by_expert = choices_of(f, 0, f.rows);
    parallel_for(threads, f.experts,
                 [&](index_t e, int) { backward_matrices(*a, hidden, pre_grad, e, by_expert[e]); });
    return int(OK);
  });
}
