// Causal attention inside each document of a packed stream, and its gradient: what training runs.
//
// A mask over the whole stream would compute every pair of tokens to keep the few that share a
// document. Here one item of work is one head of one document, so the cost is that of the
// documents. Everything is written as sums over rows (axpy_block), with keys and values transposed
// once per item. Gradients of keys and values are summed over queries in order, so a result does
// not depend on the threads.
#include <utility>
#include <vector>

#include "api.h"
#include "block.h"
#include "threads.h"

namespace {

constexpr int QUERIES = 24;  // per pass, whole blocks of rows: with all their keys they stay in the second cache

struct Document {
  index_t begin, end;
};

// Rows of scores are this long, so that no product ends inside a vector.
index_t whole_vectors(index_t n) { return (n + VEC - 1) / VEC * VEC; }

// Documents of the stream; false when `starts` does not describe any.
bool cut(const int* starts, index_t tokens, std::vector<Document>& documents) {
  for (index_t t = 0; t < tokens; t++) {
    if (starts[t] == t)
      documents.push_back({t, t + 1});
    else if (t == 0 || starts[t] != documents.back().begin)
      return false;
    documents.back().end = t + 1;
  }
  return true;
}

double work_of(const std::vector<Document>& documents, index_t heads, index_t width) {
  double work = 0;
  for (const Document& d : documents) work += 0.5 * double(d.end - d.begin) * double(d.end - d.begin);
  return work * double(heads * width);
}

// to[c][r] = from[r][c], in squares that stay in registers where the target has them.
void transpose(const float* from, index_t ldf, index_t rows, index_t cols, float* to, index_t ldt) {
  index_t whole = rows / 4 * 4;
  for (index_t c = 0; c < cols; c += 4)
    for (index_t r = 0; r < rows; r += 4) {
      const float* f = from + r * ldf + c;
      float* t = to + c * ldt + r;
      if (r < whole && c + 4 <= cols) {
        transpose4(f, ldf, t, ldt);
      } else {
        for (index_t i = 0; i < std::min<index_t>(4, rows - r); i++)
          for (index_t j = 0; j < std::min<index_t>(4, cols - c); j++) t[j * ldt + i] = f[i * ldf + j];
      }
    }
}

inline void copy(const float* from, index_t n, float* to) {
  index_t i = 0;
  for (; i + VEC <= n; i += VEC) store(to + i, load(from + i));
  for (; i < n; i++) to[i] = from[i];
}

// The same of each pair of neighbours swapped.
inline vf swapped(vf x) {
  typedef uint64_t pairs __attribute__((vector_size(sizeof(vf))));
  pairs p = (pairs)x;
  return (vf)(p << 32 | p >> 32);
}

// Turns pairs of neighbours by the angle of their token: (x, y) -> (x c - y s, x s + y c). The keys' values
// are turned at once, since all heads share them.
class Rotation {
 public:
  explicit Rotation(const Documents& d)
      : width(d.rotary), size(d.tokens * width), cos(size), sin(size), keys(size) {
    for (index_t i = 0; i < size; i++) {
      cos[i] = d.cos[i / 2];
      sin[i] = i % 2 ? d.sin[i / 2] : -d.sin[i / 2];
    }
    for (index_t t = 0; t < d.tokens; t++) turn(d.key + t * d.key_row, t, keys + t * width);
  }
  void turn(const float* from, index_t t, float* to) const { by(1.0f, from, t, to); }
  void turn_back(const float* from, index_t t, float* to) const { by(-1.0f, from, t, to); }
  const float* key(index_t t) const { return keys + t * width; }  // turned

 private:
  void by(float sign, const float* from, index_t t, float* to) const {
    const float *c = cos + t * width, *s = sin + t * width;
    index_t i = 0;
    for (; i + VEC <= width; i += VEC) {
      vf x = load(from + i);
      store(to + i, x * load(c + i) + swapped(x) * (load(s + i) * sign));
    }
    if (int part = int(width - i)) {
      vf x = load_part(from + i, part);
      store_part(to + i, x * load_part(c + i, part) + swapped(x) * (load_part(s + i, part) * sign), part);
    }
  }
  index_t width, size;
  Scratch cos, sin;  // of each value, and, signed, of its neighbour
  Scratch keys;
};

// One head of one document: its rows side by side, queries and keys turned to their positions. As rows
// lie, whole heads apart, few of them fit the cache at once.
struct Head {
  const Documents& d;
  const Rotation& rotation;
  index_t begin, length, head, plain;

  Head(const Documents& d, const Rotation& rotation, Document document, index_t head)
      : d(d), rotation(rotation), begin(document.begin), length(document.end - document.begin), head(head),
        plain(d.width - d.rotary) {}

  template <class T>
  T* row(const Heads<T>& of, index_t r) const { return of.data + (begin + r) * of.row + head * of.head; }

  // Row by row, so that as much as possible is on its way at once.
  void gather(float* q, float* k, float* v) const {
    const float *from_q = row(d.q, 0), *from_k = row(d.k, 0), *from_v = row(d.v, 0), *shared = rotation.key(begin);
    const Documents by = d;  // not read again after each store
    for (index_t r = 0; r < length; r++, q += by.width, k += by.width, v += by.value) {
      copy(from_q + r * by.q.row, plain, q);
      copy(from_k + r * by.k.row, plain, k);
      copy(from_v + r * by.v.row, by.value, v);
      copy(shared + r * by.rotary, by.rotary, k + plain);
      rotation.turn(from_q + r * by.q.row + plain, begin + r, q + plain);
    }
  }

  void turn_queries_back(const Heads<float>& grads) const {
    for (index_t r = 0; r < length; r++) {
      float* rotary = row(grads, r) + plain;
      rotation.turn_back(rotary, begin + r, rotary);
    }
  }
  // What the keys of all heads share is not turned back: it is summed up first.
  void give_keys(const float* from, const Heads<float>& to, float* shared) const {
    for (index_t r = 0; r < length; r++, from += d.width) {
      copy(from, plain, row(to, r));
      copy(from + plain, d.rotary, shared + ((begin + r) * d.heads + head) * d.rotary);
    }
  }
  void give_values(const float* from, const Heads<float>& to) const {
    for (index_t r = 0; r < length; r++) copy(from + r * d.value, d.value, row(to, r));
  }
};

// Call body(r, count) for every block of rows of a pass: they need no later keys than the last of them.
template <class Body>
void for_each_strip(index_t rows, Body body) {
  for (index_t r = 0; r < rows; r += AXPY_ROWS) body(r, std::min<index_t>(AXPY_ROWS, rows - r));
}

// Takes scratch memory bit by bit.
struct Arena {
  float* at;
  float* take(index_t n) { return std::exchange(at, at + whole_vectors(n)); }
};

// The lanes of the last vector of `seen` keys that count.
vi counted(index_t seen) {
  vi lane;
  for (int i = 0; i < VEC; i++) lane[i] = i;
  return lane < vi{} + int((seen - 1) % VEC + 1);
}

// Of a row of weights before they are divided: log(sum(exp(scale * score))), and what to multiply by
// to make them sum to 1.
struct Sums {
  float log, factor;
};

// One row of raw scores to exp(scale * (score - best)): `seen` keys count, the rest up to `keys` weigh
// nothing.
Sums softmax(float* scores, index_t seen, index_t keys, float scale) {
  index_t last = whole_vectors(seen) - VEC;
  vi counts = counted(seen);
  store(scores + last, select(counts, load(scores + last), splat(-INFINITY)));
  vf top = load(scores + last), total = {};
  for (index_t i = 0; i < last; i += VEC) top = max(load(scores + i), top);
  vf best = splat(largest(top) * scale);
  for (index_t i = 0; i <= last; i += VEC) {
    vf w = exp_below(load(scores + i) * scale - best);
    store(scores + i, w);
    total += w;
  }
  for (index_t i = last + VEC; i < keys; i++) scores[i] = 0.0f;
  float whole = sum(total);
  return {best[0] + std::log(whole), 1.0f / whole};
}

void attend(const DocumentsArgs& a, const Head& h, Arena scratch) {
  const Documents& d = a.common;
  index_t length = h.length, ld = whole_vectors(length), width = d.width, out = d.heads * d.value;
  float *q = scratch.take(length * width), *k_t = scratch.take(width * ld), *v = scratch.take(length * d.value);
  float *scores = scratch.take(QUERIES * ld), *k = scratch.take(length * width);
  h.gather(q, k, v);
  transpose(k, width, length, width, k_t, ld);
  for (index_t r0 = 0; r0 < length; r0 += QUERIES) {
    index_t rows = std::min<index_t>(QUERIES, length - r0), keys = r0 + rows;
    float* y = a.y + (h.begin + r0) * out + h.head * d.value;
    float factors[QUERIES];
    for_each_strip(rows, [&](index_t r, index_t count) {
      int seen = int(whole_vectors(r0 + r + count));
      axpy_block(q + (r0 + r) * width, width, count, k_t, ld, int(width), seen, scores + r * ld, ld, false);
    });
    for (index_t r = 0; r < rows; r++) {
      Sums sums = softmax(scores + r * ld, r0 + r + 1, keys, float(d.scale));
      a.log_sum[(h.begin + r0 + r) * d.heads + h.head] = sums.log;
      factors[r] = sums.factor;
      ask_to_write(y + r * out, d.value);
    }
    for_each_strip(rows, [&](index_t r, index_t count) {
      axpy_block(scores + r * ld, ld, count, v, d.value, int(r0 + r + count), int(d.value), y + r * out, out, false);
    });
    for (index_t r = 0; r < rows; r++)  // shorter than the row of weights
      for (index_t c = 0; c < d.value; c++) y[r * out + c] *= factors[r];
  }
}

// weights = exp(scale * score - log_sum), then slope = weights * (slope - sum(weights * slope)) * scale.
void softmax_grad(float* weights, float* slope, index_t seen, index_t keys, float scale, float log_sum) {
  index_t last = whole_vectors(seen) - VEC;
  vi counts = counted(seen);
  store(weights + last, select(counts, load(weights + last), splat(-INFINITY)));
  store(slope + last, select(counts, load(slope + last), vf{}));
  vf total = {};
  for (index_t i = 0; i <= last; i += VEC) {
    vf w = exp_below(load(weights + i) * scale - log_sum);
    store(weights + i, w);
    total = fma(w, load(slope + i), total);
  }
  float mean = sum(total);
  for (index_t i = 0; i <= last; i += VEC)
    store(slope + i, load(weights + i) * (load(slope + i) - mean) * scale);
  for (index_t i = last + VEC; i < keys; i++) weights[i] = slope[i] = 0.0f;
}

void attend_grad(const DocumentsGradArgs& a, const Head& h, Arena scratch, float* shared) {
  const Documents& d = a.common;
  index_t length = h.length, ld = whole_vectors(length), width = d.width, value = d.value;
  index_t near = length * width, wide = width * ld;
  float *q = scratch.take(near), *k = scratch.take(near), *k_t = scratch.take(wide), *v_t = scratch.take(value * ld);
  float *weights = scratch.take(QUERIES * ld), *slope = scratch.take(QUERIES * ld);
  float *k_grad = scratch.take(near), *v_grad = scratch.take(length * value), *v = scratch.take(length * value);
  index_t out = d.heads * value, in = a.q_grad.row;
  const Heads<const float> y_grad = {a.y_grad, out, value};
  h.gather(q, k, v);
  transpose(k, width, length, width, k_t, ld);
  transpose(v, value, length, value, v_t, ld);
  for (index_t r0 = 0; r0 < length; r0 += QUERIES) {
    index_t rows = std::min<index_t>(QUERIES, length - r0), keys = r0 + rows;
    const float *q0 = q + r0 * width, *y0 = h.row(y_grad, r0);
    for_each_strip(rows, [&](index_t r, index_t count) {
      int seen = int(whole_vectors(r0 + r + count));
      axpy_block(q0 + r * width, width, count, k_t, ld, int(width), seen, weights + r * ld, ld, false);
      axpy_block(y0 + r * out, out, count, v_t, ld, int(value), seen, slope + r * ld, ld, false);
    });
    for (index_t r = 0; r < rows; r++) {
      softmax_grad(weights + r * ld, slope + r * ld, r0 + r + 1, keys, float(d.scale),
                   a.log_sum[(h.begin + r0 + r) * d.heads + h.head]);
      ask_to_write(h.row(a.q_grad, r0 + r), width);
      ask_to_write(h.row(a.k_grad, r0 + r), h.plain);
      ask_to_write(h.row(a.v_grad, r0 + r), value);
    }
    for_each_strip(rows, [&](index_t r, index_t count) {
      float* to = h.row(a.q_grad, r0 + r);
      axpy_block(slope + r * ld, ld, count, k, width, int(r0 + r + count), int(width), to, in, false);
    });
    // the keys this pass sees first are written, earlier ones added to
    auto give = [&](const float* from, const float* rows_of, index_t stride, index_t cols, float* to) {
      axpy_turned(from, ld, r0, rows_of, stride, int(rows), int(cols), to, cols, true);
      axpy_turned(from + r0, ld, rows, rows_of, stride, int(rows), int(cols), to + r0 * cols, cols, false);
    };
    give(weights, y0, out, value, v_grad);
    give(slope, q0, width, width, k_grad);
  }
  h.turn_queries_back(a.q_grad);
  h.give_keys(k_grad, a.k_grad, shared);
  h.give_values(v_grad, a.v_grad);
}

// The gradient of the values that the keys of all heads share: a sum over the heads in order.
void give_shared(const DocumentsGradArgs& a, const Rotation& rotation, const float* shared) {
  const Documents& d = a.common;
  for (index_t t = 0; t < d.tokens; t++) {
    const float* mine = shared + t * d.heads * d.rotary;
    float* to = a.key_grad + t * d.rotary;
    copy(mine, d.rotary, to);
    for (index_t h = 1; h < d.heads; h++)
      for (index_t i = 0; i < d.rotary; i++) to[i] += mine[h * d.rotary + i];
    rotation.turn_back(to, t, to);
  }
}

// Call body(head of a document, scratch) for all; `lines` are scratch rows as long as the document.
template <class Body>
int for_each_head(const Documents& d, const Rotation& rotation, index_t lines, double passes, Body body) {
  std::vector<Document> documents;
  if (!cut(d.starts, d.tokens, documents)) return OUT_OF_RANGE;
  index_t longest = 0;
  for (const Document& document : documents) longest = std::max(longest, document.end - document.begin);
  int threads = threads_for(passes * work_of(documents, d.heads, d.width + d.value));
  index_t each = lines * (longest + VEC);
  Scratch scratch(threads * each);
  parallel_for(threads, index_t(documents.size()) * d.heads, [&](index_t item, int thread) {
    body(Head(d, rotation, documents[item / d.heads], item % d.heads), Arena{scratch + thread * each});
  });
  return OK;
}

}  // namespace

INGLE_API int ingle_document_attention(const DocumentsArgs* a) {
  return guarded([&] {
    const Documents& d = a->common;
    index_t lines = 3 * d.width + d.value + QUERIES;
    return for_each_head(d, Rotation(d), lines, 1.0, [&](const Head& h, Arena scratch) { attend(*a, h, scratch); });
  });
}

INGLE_API int ingle_document_attention_grad(const DocumentsGradArgs* a) {
  return guarded([&] {
    const Documents& d = a->common;
    Rotation rotation(d);
    Scratch shared(d.tokens * d.heads * d.rotary);
    index_t lines = 4 * d.width + 3 * d.value + 2 * QUERIES;
    int status = for_each_head(d, rotation, lines, 2.5, [&](const Head& h, Arena scratch) {
      attend_grad(*a, h, scratch, shared);
    });
    if (status == OK) give_shared(*a, rotation, shared);
    return status;
  });
}
