// One or two matrices applied to the same rows, and their gradients, as training runs them.
//
//     y_m[n] = w_m x[n]
//
// A block of rows goes through both products of the gradient while it is in the cache. Rows are divided
// into lanes, each of which sums gradients of the matrices of its own, one block after the other: so
// nothing depends on the threads.
//
// Legend: I inputs, O outputs of a matrix.
#include "api.h"
#include "panels.h"
#include "threads.h"

namespace {

constexpr index_t BLOCK = 184;  // rows: panels so apart share no set

double work_of(const Projection& p) { return double(p.rows * p.inner) * double(p.outs[0] + p.outs[1]); }

// Pointers to `count` rows of a matrix from row n0 on.
template <class T>
struct Rows {
  T* at[BLOCK];
  Rows(T* first, index_t n0, index_t count, index_t width) {
    for (index_t i = 0; i < count; i++) at[i] = first + (n0 + i) * width;
  }
};

// Both matrices packed, one after the other.
struct Packed {
  Scratch memory;
  float* of[2];
  template <class Pack>
  Packed(index_t first, index_t second, Pack pack) : memory(first + second), of{memory, memory + first} {
    for (int m = 0; m < 2; m++) pack(m, of[m]);
  }
};

void forward(const ProjectionArgs& a) {
  const Projection& p = a.common;
  index_t I = p.inner;
  Packed packed(packed_size(I, p.outs[0]), packed_size(I, p.outs[1]),
                [&](int m, float* to) { pack_turned(p.weight[m], I, I, p.outs[m], to); });
  parallel_for(threads_for(work_of(p)), (p.rows + BLOCK - 1) / BLOCK, [&](index_t b, int) {
    index_t n0 = b * BLOCK, count = std::min(BLOCK, p.rows - n0);
    Rows<const float> x(p.x, n0, count, I);
    for (int m = 0; m < 2; m++) {
      index_t O = p.outs[m];
      Rows<float> y(a.y[m], n0, count, O);
      times_packed(x.at, count, packed.of[m], I, O, y.at, nullptr, false);
    }
  });
}

struct Lane {
  const ProjectionGradArgs& a;
  const Packed& packed;
  float* grads;  // of both matrices, one after the other

  void operator()(index_t n0, index_t n1) const {
    const Projection& p = a.common;
    index_t I = p.inner, most = std::max(p.outs[0], p.outs[1]);
    float* grad[2] = {grads, grads + p.outs[0] * I};
    if (a.learns && n0 == n1) std::fill(grads, grad[1] + p.outs[1] * I, 0.0f);
    Scratch near_x(packed_size(BLOCK, I)), strips(strips_size(BLOCK, most));
    for (index_t n = n0; n < n1; n += BLOCK) {
      index_t count = std::min(BLOCK, n1 - n);
      Rows<const float> x(p.x, n, count, I);
      Rows<float> x_grad(a.x_grad, n, count, I);
      for (index_t r = 0; a.learns && r < count; r++) pack_row(x.at[r], r, count, I, near_x);
      for (int m = 0; m < 2; m++) {
        index_t O = p.outs[m];
        Rows<const float> y_grad(a.y_grad[m], n, count, O);
        times_packed(y_grad.at, count, packed.of[m], O, I, x_grad.at, nullptr, m > 0);
        if (!a.learns) continue;
        for (index_t r = 0; r < count; r++) strip_row(y_grad.at[r], 1.0f, r, count, O, strips);
        outer(in_strips(strips, count), O, in_panels(near_x, count), count, I, grad[m], I, n > n0);
      }
    }
  }
};

void backward(const ProjectionGradArgs& a) {
  const Projection& p = a.common;
  index_t I = p.inner, both = (p.outs[0] + p.outs[1]) * I;
  Packed packed(packed_size(p.outs[0], I), packed_size(p.outs[1], I),
                [&](int m, float* to) { pack(p.weight[m], I, p.outs[m], I, to); });
  Scratch parts(a.learns ? LANES * both : 0);
  index_t lanes = a.learns ? LANES : (p.rows + BLOCK - 1) / BLOCK;
  parallel_for(threads_for(2 * work_of(p)), lanes, [&](index_t i, int) {
    Lane{a, packed, parts + i * both}(i * p.rows / lanes, (i + 1) * p.rows / lanes);
  });
  if (!a.learns) return;
  for (index_t m = 0, at = 0; m < 2; at += p.outs[m] * I, m++)
    add_lanes(parts + at, both, p.outs[m] * I, a.weight_grad[m]);
}

}  // namespace

INGLE_API int ingle_projection(const ProjectionArgs* a) {
  return guarded([&] {
    forward(*a);
    return int(OK);
  });
}

INGLE_API int ingle_projection_grad(const ProjectionGradArgs* a) {
  return guarded([&] {
    backward(*a);
    return int(OK);
  });
}
