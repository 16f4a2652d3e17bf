// SwiGLU feed-forward as training runs it, dense or as the experts of a mixture, and its gradients.
//
//     y[n] = sum_k w[n][k] * down_e( silu(gate_e x[n]) * up_e x[n] ),  e = ids[n][k]
//
// Tokens are taken in blocks whose rows stay near, and in a block one expert after the other: between the
// products nothing goes through memory but what the gradient needs, the gate and up values of every
// choice. Weights are packed once per call. Gradients are computed so too: of an expert's choices in a block
// first those of x and of the weights w, then what they add to those of the matrices. Nothing that is
// summed depends on how the work is shared.
//
// Legend: D width, F inner, J = 2F, a choice is n * top_k + k.
#include <vector>

#include "api.h"
#include "panels.h"
#include "threads.h"

namespace {

constexpr index_t BLOCK_FLOATS = 48 * 1024;  // of x in a block of tokens: they stay in the second cache
constexpr index_t DEPTH = 184;  // choices per pass of the matrices' gradients: panels so apart share no set

typedef std::vector<index_t> Choices;

index_t experts_of(const FeedForward& f) { return f.experts[0] + f.experts[1]; }

// Expert e's matrix of `size` floats, from the first stack or the one after it.
template <class T>
T* matrix(const FeedForward& f, T* const (&stacks)[2], index_t e, index_t size) {
  bool second = e >= f.experts[0];
  return stacks[second] + (second ? e - f.experts[0] : e) * size;
}

// Some tokens, and their choices by expert, in order.
struct Block {
  index_t begin, end;
  std::vector<Choices> choices;
  std::vector<index_t> places;  // of each expert's first choice, where those of all blocks lie in this order

  // Whether an expert has every token once: an MLP.
  bool whole(const FeedForward& f, index_t e) const {
    if (index_t(choices[e].size()) != end - begin) return false;
    for (index_t i = 0; i < end - begin; i++)
      if (choices[e][i] / f.top_k != begin + i) return false;
    return true;
  }
};

// All tokens, in blocks of a few DEPTHs: in a mixture of enough that an expert, whose matrices are read for
// each block, has about half a DEPTH. Not too many: threads share the blocks.
std::vector<Block> blocks_of(const FeedForward& f) {
  index_t reused = std::min<index_t>(4, (experts_of(f) / f.top_k + 1) / 2);
  index_t size = DEPTH * std::max({index_t(1), BLOCK_FLOATS / f.width / DEPTH, reused});
  std::vector<Block> blocks;
  for (index_t n = 0; n < f.rows; n += size) {
    Block block = {n, std::min(f.rows, n + size), std::vector<Choices>(experts_of(f)), {}};
    for (index_t c = block.begin * f.top_k; c < block.end * f.top_k; c++) block.choices[f.ids[c]].push_back(c);
    index_t place = block.begin * f.top_k;
    for (const Choices& mine : block.choices) {
      block.places.push_back(place);
      place += index_t(mine.size());
    }
    blocks.push_back(std::move(block));
  }
  return blocks;
}

bool in_range(const FeedForward& f) {
  for (index_t c = 0; c < f.rows * f.top_k; c++)
    if (f.ids[c] < 0 || f.ids[c] >= experts_of(f)) return false;
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

// Call body(expert, its choices, whether it adds to what others left in the sums) for a block, whose rows of
// sums are written.
template <class Body>
void for_each_turn(const FeedForward& f, const Block& block, float* sums, Body body) {
  bool whole = block.whole(f, 0);
  if (!whole) std::fill(sums + block.begin * f.width, sums + block.end * f.width, 0.0f);
  for (index_t e = 0; e < experts_of(f); e++) body(e, block.choices[e], e > 0 || !whole);
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
      : first(first), both(first + second), memory(experts_of(f) * both) {}
  float* operator[](index_t e) const { return memory + e * both; }
};

void forward(const FeedForwardArgs& a) {
  const FeedForward& f = a.common;
  index_t D = f.width, F = f.inner, J = 2 * F;
  int threads = threads_for(work_of(f));
  Packed packed(f, packed_size(D, J), packed_size(F, D));
  parallel_for(threads, experts_of(f), [&](index_t e, int) {
    pack_turned(matrix(f, f.gate_up, e, J * D), D, D, J, packed[e]);
    pack_turned(matrix(f, f.down, e, D * F), F, F, D, packed[e] + packed.first);
  });
  auto blocks = blocks_of(f);
  parallel_for(threads, index_t(blocks.size()), [&](index_t b, int) {
    Scratch hidden((blocks[b].end - blocks[b].begin) * f.top_k * F);
    for_each_turn(f, blocks[b], a.y, [&](index_t e, const Choices& mine, bool adds) {
      index_t count = index_t(mine.size());
      auto x = rows(f.x, mine, D, f.top_k);
      auto pre = rows(a.pre, mine, J);
      times_packed(x.data(), count, packed[e], D, J, pre.data(), nullptr, false);
      for (index_t i = 0; i < count; i++) activate(pre[i], F, hidden + i * F);
      auto h = list<const float*>(count, [&](index_t i) { return hidden + i * F; });
      auto y = rows(a.y, mine, D, f.top_k);
      auto w = list<float>(count, [&](index_t i) { return f.weights[mine[i]]; });
      times_packed(h.data(), count, packed[e] + packed.first, F, D, y.data(), w.data(), adds);
    });
  });
}

// h of some choices, and the gradients of gate and up: what the gradients of x and of the matrices are made of.
struct Middle {
  index_t first, h_row, grad_row;  // the first place
  Scratch hidden, pre_grad;
  Middle(index_t first, index_t count, index_t inner)
      : first(first), h_row(odd_lines(inner)), grad_row(odd_lines(2 * inner)),
        hidden(count * h_row + PANEL), pre_grad(count * grad_row) {}
  float* h(index_t place) const { return hidden + (place - first) * h_row; }
  float* grad(index_t place) const { return pre_grad + (place - first) * grad_row; }
};

// Gradients of x and w by an expert of a block, and what its matrices' need. adds: to those of experts before.
void backward_rows(const FeedForwardGradArgs& a, const Packed& packed, const Block& block, const Middle& middle,
                   index_t e, bool adds) {
  const FeedForward& f = a.common;
  const Choices& mine = block.choices[e];
  index_t D = f.width, F = f.inner, J = 2 * F, count = index_t(mine.size()), place = block.places[e];
  Scratch h_grad(count * F);
  auto y = rows(a.y_grad, mine, D, f.top_k);
  auto h = list<float*>(count, [&](index_t i) { return h_grad + i * F; });
  times_packed(y.data(), count, packed[e], D, F, h.data(), nullptr, false);
  auto grad = list<float*>(count, [&](index_t i) { return middle.grad(place + i); });
  for (index_t i = 0; i < count; i++) {
    ask(a.pre + mine[std::min(i + 2, count - 1)] * J, J);  // gone to memory since the forward pass
    index_t c = mine[i];
    a.weights_grad[c] = activate_grad(a.pre + c * J, h[i], f.weights[c], F, middle.h(place + i), grad[i]);
  }
  auto x = rows(a.x_grad, mine, D, f.top_k);
  times_packed(grad.data(), count, packed[e] + packed.first, J, D, x.data(), nullptr, adds);
}

// The gradients of an expert's matrices of a block: sums over its choices, at most DEPTH at a time. adds: to
// those of blocks before.
void backward_matrices(const FeedForwardGradArgs& a, const Block& block, const Middle& middle, index_t e, bool adds) {
  const FeedForward& f = a.common;
  const Choices& mine = block.choices[e];
  index_t D = f.width, F = f.inner, J = 2 * F, count = index_t(mine.size());
  float *gate_up = matrix(f, a.gate_up_grad, e, J * D), *down = matrix(f, a.down_grad, e, D * F);
  Scratch x(packed_size(DEPTH, D)), y(strips_size(DEPTH, D));
  for (index_t passes = (count + DEPTH - 1) / DEPTH, i0 = 0; passes > 0; passes--) {
    index_t k = (count - i0 + passes - 1) / passes;
    for (index_t t = 0; t < k; t++) {
      index_t c = mine[i0 + t], n = c / f.top_k;
      pack_row(f.x + n * D, t, k, D, x);
      strip_row(a.y_grad + n * D, f.weights[c], t, k, D, y);
    }
    index_t place = block.places[e] + i0;
    Factor grad = rows_as_strips(middle.grad(place), middle.grad_row);
    Factor h = rows_as_panels(middle.h(place), middle.h_row);
    outer(grad, J, in_panels(x, k), k, D, gate_up, D, adds || i0);
    outer(in_strips(y, k), D, h, k, F, down, F, adds || i0);
    i0 += k;
  }
}

void backward(const FeedForwardGradArgs& a) {
  const FeedForward& f = a.common;
  index_t D = f.width, F = f.inner, J = 2 * F;
  int threads = threads_for(2 * work_of(f));
  Packed packed(f, packed_size(D, F), packed_size(J, D));
  parallel_for(threads, experts_of(f), [&](index_t e, int) {
    pack(matrix(f, f.down, e, D * F), F, D, F, packed[e]);
    pack(matrix(f, f.gate_up, e, J * D), D, J, D, packed[e] + packed.first);
  });
  auto blocks = blocks_of(f);
  std::vector<char> begun(experts_of(f));  // whose matrices' gradients are written
  auto matrices = [&](const Block& block, const Middle& middle, index_t e) {
    if (!a.learns || block.choices[e].empty()) return;
    backward_matrices(a, block, middle, e, begun[e]);
    begun[e] = true;
  };
  if (threads == 1) {  // finishes an expert's part of a block while it is near
    for (const Block& block : blocks)
      for_each_turn(f, block, a.x_grad, [&](index_t e, const Choices& mine, bool adds) {
        Middle middle(block.places[e], index_t(mine.size()), F);
        backward_rows(a, packed, block, middle, e, adds);
        matrices(block, middle, e);
      });
  } else {  // share the blocks, then the experts
    Middle middle(0, f.rows * f.top_k, F);
    parallel_for(threads, index_t(blocks.size()), [&](index_t b, int) {
      for_each_turn(f, blocks[b], a.x_grad, [&](index_t e, const Choices&, bool adds) {
        backward_rows(a, packed, blocks[b], middle, e, adds);
      });
    });
    parallel_for(threads, experts_of(f), [&](index_t e, int) {
      for (const Block& block : blocks) matrices(block, middle, e);
    });
  }
  for (index_t e = 0; a.learns && e < experts_of(f); e++) {
    if (begun[e]) continue;
    std::fill_n(matrix(f, a.gate_up_grad, e, J * D), J * D, 0.0f);
    std::fill_n(matrix(f, a.down_grad, e, D * F), D * F, 0.0f);
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
    if (!in_range(a->common)) return int(OUT_OF_RANGE);
    backward(*a);
    return int(OK);
  });
}
