// Linear layers and the router.
#include "api.h"
#include "operand.h"
#include "threads.h"

namespace {

void product(const float* x, index_t rows, index_t inner, const Weight& w, index_t outs, float* y) {
  int threads = threads_for(double(rows) * inner * outs);
  Operand operand(x, rows, inner);
  operand.prepare(w, threads);
  Pieces o(outs, 8, threads), r(outs < 8 * threads ? rows : 0, 1, threads);
  if (r.count > 1)  // too few outputs to share
    return parallel_for(threads, r.count, [&](index_t i, int) {
      operand.times(w, r.begin(i), r.end(i) - r.begin(i), 0, outs, y + r.begin(i) * outs, outs);
    });
  parallel_for(threads, o.count, [&](index_t i, int) {
    operand.times(w, 0, rows, o.begin(i), o.end(i) - o.begin(i), y + o.begin(i), outs);
  });
}

// Index of the largest value that is not taken yet; among equals the lowest index.
int take_best(const float* values, char* taken, int n) {
  int best = -1;
  for (int i = 0; i < n; i++)
    if (!taken[i] && (best < 0 || values[i] > values[best])) best = i;
  taken[best] = 1;
  return best;
}

// What a group is chosen by: the sum of its two largest choices, or its largest.
float group_score(const float* choice, int size, bool only_best) {
  float first = -INFINITY, second = -INFINITY;
  for (int i = 0; i < size; i++) {
    if (choice[i] > first) {
      second = first;
      first = choice[i];
    } else if (choice[i] > second) {
      second = choice[i];
    }
  }
  return size > 1 && !only_best ? first + second : first;
}

void softmax(const float* logits, int n, float* score) {
  float top = logits[0];
  for (int i = 1; i < n; i++) top = std::max(top, logits[i]);
  float total = 0;
  for (int i = 0; i < n; i += VEC) {
    int part = std::min(VEC, n - i);
    store_part(score + i, exp(load_part(logits + i, part) - top), part);
    for (int j = i; j < i + part; j++) total += score[j];
  }
  for (int i = 0; i < n; i++) score[i] /= total;
}

// One row. `room` and `taken`: 3 * experts floats and experts chars of scratch.
void choose(const float* logits, const RouteArgs& r, float* room, char* taken, int* ids, float* weights) {
  int experts = int(r.experts);
  float *score = room, *choice = room + experts;
  if (r.softmax)
    softmax(logits, experts, score);
  else
    for (int e = 0; e < experts; e += VEC) {
      int n = std::min(VEC, experts - e);
      store_part(score + e, sigmoid(load_part(logits + e, n)), n);
    }
  for (int e = 0; e < experts; e++) choice[e] = r.bias ? score[e] + r.bias[e] : score[e];
  if (r.groups > 1) {
    int groups = int(r.groups), size = experts / groups;
    float* group = room + 2 * experts;
    for (int g = 0; g < groups; g++) group[g] = group_score(choice + g * size, size, r.softmax);
    std::memset(taken, 0, groups);
    for (int k = 0; k < r.top_groups; k++) take_best(group, taken, groups);
    for (int e = 0; e < experts; e++)
      if (!taken[e / size]) choice[e] = -INFINITY;
  }
  std::memset(taken, 0, experts);
  float total = 0;
  for (int k = 0; k < r.top_k; k++) {
    ids[k] = take_best(choice, taken, experts);
    weights[k] = score[ids[k]];
    total += weights[k];
  }
  float scale = float(r.scale), factor = r.normalise ? scale / (total + 1e-20f) : scale;
  for (int k = 0; k < r.top_k; k++) weights[k] *= factor;
}

}  // namespace

INGLE_API int ingle_linear(const LinearArgs* a) {
  return guarded([&] {
    product(a->x, a->rows, a->inner, a->weight, a->outs, a->y);
    return int(OK);
  });
}

INGLE_API int ingle_route(const RouteArgs* a) {
  if (a->top_k > a->experts || a->top_groups > a->groups || a->experts % a->groups) return OUT_OF_RANGE;
  return guarded([&] {
    Scratch logits(a->rows * a->experts), room(3 * a->experts);
    std::unique_ptr<char[]> taken(new char[a->experts]);
    product(a->x, a->rows, a->width, a->gate, a->experts, logits);
    for (index_t n = 0; n < a->rows; n++)
      choose(logits + n * a->experts, *a, room, taken.get(), a->ids + n * a->top_k,
             a->weights + n * a->top_k);
    return int(OK);
  });
}
