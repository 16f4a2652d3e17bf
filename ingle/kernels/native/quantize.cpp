// Rounding weights to int8 and int4 while they are loaded: see kernels/quantized.py for the formats.
#include "operand.h"
#include "threads.h"

namespace {

constexpr int TRIES = 14;  // scales tried for a group of int4

float widen_up(float a) {  // the next bf16 that is not below a positive a, as a float
  uint32_t bits;
  std::memcpy(&bits, &a, 4);
  bits = (bits + 0xffff) & 0xffff0000u;
  std::memcpy(&a, &bits, 4);
  return a;
}

float nearest(float a) {
  bf16 b = narrow(a);
  uint32_t bits = uint32_t(b.bits) << 16;
  std::memcpy(&a, &bits, 4);
  return a;
}

vf round(vf x) {
  const vf shifter = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to the nearest integer
  return (x + shifter) - shifter;
}

// Squared error of a group, weighted, after rounding with a scale; q receives the integers.
float round_group(const float* w, const float* importance, float scale, float low, float high, float* q) {
  vf error = {}, inverse = splat(scale != 0 ? 1.0f / scale : 0.0f), step = splat(scale);
  for (int i = 0; i < GROUP; i += VEC) {
    vf value = load(w + i), near = max(splat(low), min(splat(high), round(value * inverse)));
    store(q + i, near);
    vf miss = value - near * step;
    error = fma(miss * miss, load(importance + i), error);
  }
  return sum(error);
}

float group_int8(const float* w, const float* importance, uint8_t* to) {
  float largest = 0, q[GROUP];
  for (int i = 0; i < GROUP; i++) largest = std::max(largest, std::fabs(w[i]));
  float scale = widen_up(largest / 127.0f);
  round_group(w, importance, scale, -127, 127, q);
  for (int i = 0; i < GROUP; i++) to[i] = uint8_t(int8_t(q[i]));
  return scale;
}

// The value of largest size becomes -8; of the scales a little smaller and larger than that asks,
// of either sign, the one with the least error is taken.
float group_int4(const float* w, const float* importance, uint8_t* to) {
  float extreme = 0, best_scale = 0, least = INFINITY, q[GROUP], best[GROUP] = {};
  for (int i = 0; i < GROUP; i++)
    if (std::fabs(w[i]) > std::fabs(extreme)) extreme = w[i];
  for (int t = 0; t < TRIES && extreme != 0; t++) {
    float scale = nearest(extreme / -8.0f * (1.04f - 0.04f * float(t / 2)) * (t % 2 ? -1.0f : 1.0f));
    float error = round_group(w, importance, scale, -8, 7, q);
    if (error < least) {
      least = error;
      best_scale = scale;
      std::memcpy(best, q, sizeof q);
    }
  }
  for (int i = 0; i < GROUP / 2; i++)
    to[i] = uint8_t(int(best[i]) + 8) | uint8_t(int(best[i + GROUP / 2]) + 8) << 4;
  return best_scale;
}

template <class T>
void quantize_rows(const QuantizeArgs& a, const T* weight, index_t begin, index_t end) {
  index_t groups = groups_of(a.inner), bytes = a.kind == INT4 ? GROUP / 2 : GROUP;
  alignas(64) float w[GROUP], importance[GROUP];
  for (int i = 0; i < GROUP; i++) importance[i] = 1.0f;
  for (index_t o = begin; o < end; o++)
    for (index_t g = 0; g < groups; g++) {
      index_t n = std::min(GROUP, a.inner - g * GROUP);
      for (int i = 0; i < GROUP; i += VEC) {
        int part = int(std::max<index_t>(0, std::min<index_t>(VEC, n - i)));
        store(w + i, load_part(weight + o * a.inner + g * GROUP + i, part));
        if (a.importance) store(importance + i, load_part(a.importance + g * GROUP + i, part));
      }
      uint8_t* to = a.data + (o * groups + g) * bytes;
      float scale = a.kind == INT4 ? group_int4(w, importance, to) : group_int8(w, importance, to);
      a.scale[o * groups + g] = narrow(scale);
    }
}

}  // namespace

INGLE_API int ingle_quantize(const QuantizeArgs* a) {
  if (a->kind != INT8 && a->kind != INT4) return OUT_OF_RANGE;
  int threads = threads_for(double(a->outs) * a->inner * TRIES);
  Pieces rows(a->outs, 1, threads);
  parallel_for(threads, rows.count, [&](index_t i, int) {
    with_type(a->bf16, a->weight, [&](auto* weight) { quantize_rows(*a, weight, rows.begin(i), rows.end(i)); });
  });
  return OK;
}
