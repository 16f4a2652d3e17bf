// Causal attention inside each document of a packed stream, and its gradient: what training runs.
//
// A mask over the whole stream would compute every pair of tokens to keep the few that share a
// document. Here one item of work is one head of one document, so the cost is that of the
// documents. Everything is written as sums over rows (axpy_block), with keys and values transposed
// once per item. Gradients of keys and values are summed over queries in order, so a result does
// not depend on the threads.
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

// Rows of one head side by side: as they lie, whole heads apart, few of them fit the cache at once.
void gather(const float* from, index_t ldf, index_t rows, index_t cols, float* to, index_t ldt) {
  for (index_t r = 0; r < rows; r++) std::memcpy(to + r * ldt, from + r * ldf, cols * sizeof(float));
}

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

void attend(const DocumentsArgs& a, const Document& d, index_t head, float* scratch) {
  index_t length = d.end - d.begin, ld = whole_vectors(length);
  index_t step = a.heads * a.width, out = a.heads * a.value;
  const float* q = a.q + d.begin * step + head * a.width;
  const float* k = a.k + d.begin * step + head * a.width;
  const float* v = a.v + d.begin * out + head * a.value;
  float *k_t = scratch, *near_v = k_t + a.width * ld, *scores = near_v + a.value * ld;
  transpose(k, step, length, a.width, k_t, ld);
  gather(v, out, length, a.value, near_v, a.value);
  for (index_t r0 = 0; r0 < length; r0 += QUERIES) {
    index_t rows = std::min<index_t>(QUERIES, length - r0), keys = r0 + rows;
    float* y = a.y + (d.begin + r0) * out + head * a.value;
    float factors[QUERIES];
    axpy_block(q + r0 * step, step, rows, k_t, ld, int(a.width), int(whole_vectors(keys)), scores, ld, false);
    for (index_t r = 0; r < rows; r++) {
      Sums sums = softmax(scores + r * ld, r0 + r + 1, keys, float(a.scale));
      a.log_sum[(d.begin + r0 + r) * a.heads + head] = sums.log;
      factors[r] = sums.factor;
    }
    axpy_block(scores, ld, rows, near_v, a.value, int(keys), int(a.value), y, out, false);
    for (index_t r = 0; r < rows; r++)  // shorter than the row of weights
      for (index_t c = 0; c < a.value; c++) y[r * out + c] *= factors[r];
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

void attend_grad(const DocumentsGradArgs& a, const Document& d, index_t head, float* scratch) {
  index_t length = d.end - d.begin, ld = whole_vectors(length);
  index_t step = a.heads * a.width, out = a.heads * a.value;
  index_t in_at = d.begin * step + head * a.width, out_at = d.begin * out + head * a.value;
  const float *q = a.q + in_at, *k = a.k + in_at, *v = a.v + out_at, *y_grad = a.y_grad + out_at;
  float *k_t = scratch, *v_t = k_t + a.width * ld, *weights = v_t + a.value * ld;
  float *slope = weights + QUERIES * ld, *near_k = slope + QUERIES * ld;
  float *k_grad = near_k + a.width * ld, *v_grad = k_grad + a.width * ld;
  gather(k, step, length, a.width, near_k, a.width);
  transpose(k, step, length, a.width, k_t, ld);
  transpose(v, out, length, a.value, v_t, ld);
  for (index_t r0 = 0; r0 < length; r0 += QUERIES) {
    index_t rows = std::min<index_t>(QUERIES, length - r0), keys = r0 + rows;
    const float *q0 = q + r0 * step, *y0 = y_grad + r0 * out;
    axpy_block(q0, step, rows, k_t, ld, int(a.width), int(whole_vectors(keys)), weights, ld, false);
    axpy_block(y0, out, rows, v_t, ld, int(a.value), int(whole_vectors(keys)), slope, ld, false);
    for (index_t r = 0; r < rows; r++)
      softmax_grad(weights + r * ld, slope + r * ld, r0 + r + 1, keys, float(a.scale),
                   a.log_sum[(d.begin + r0 + r) * a.heads + head]);
    axpy_block(slope, ld, rows, near_k, a.width, int(keys), int(a.width), a.q_grad + in_at + r0 * step, step, false);
    // the keys this pass sees first are written, earlier ones added to
    auto give = [&](const float* from, const float* rows_of, index_t stride, index_t cols, float* to) {
      axpy_turned(from, ld, r0, rows_of, stride, int(rows), int(cols), to, cols, true);
      axpy_turned(from + r0, ld, rows, rows_of, stride, int(rows), int(cols), to + r0 * cols, cols, false);
    };
    give(weights, y0, out, a.value, v_grad);
    give(slope, q0, step, a.width, k_grad);
  }
  gather(k_grad, a.width, length, a.width, a.k_grad + in_at, step);
  gather(v_grad, a.value, length, a.value, a.v_grad + out_at, out);
}

// Run body(document, head, scratch) for all; `lines` are scratch rows as long as the document.
template <class Args, class Body>
int for_each_head(const Args& a, index_t lines, double passes, Body body) {
  std::vector<Document> documents;
  if (!cut(a.starts, a.tokens, documents)) return OUT_OF_RANGE;
  index_t longest = 0;
  for (const Document& d : documents) longest = std::max(longest, d.end - d.begin);
  int threads = threads_for(passes * work_of(documents, a.heads, a.width + a.value));
  index_t each = lines * (longest + VEC);
  Scratch scratch(threads * each);
  parallel_for(threads, index_t(documents.size()) * a.heads, [&](index_t item, int thread) {
    body(a, documents[item / a.heads], item % a.heads, scratch + thread * each);
  });
  return OK;
}

}  // namespace

INGLE_API int ingle_document_attention(const DocumentsArgs* a) {
  return guarded([&] { return for_each_head(*a, a->width + a->value + QUERIES, 1.0, attend); });
}

INGLE_API int ingle_document_attention_grad(const DocumentsGradArgs* a) {
  return guarded([&] {
    return for_each_head(*a, 3 * a->width + 2 * a->value + 2 * QUERIES, 2.5, attend_grad);
  });
}
