// Norms, rotary embeddings and the write into the latent cache: one pass over each row.
#include "api.h"
#include "threads.h"

namespace {

// y = w * (x / sqrt(mean(x^2) + eps)). Four running sums, so that the adds overlap.
template <class T>
void norm_row(const float* x, const T* w, index_t width, float eps, float* y) {
  vf square[4] = {};
  index_t i = 0;
  for (; i + 4 * VEC <= width; i += 4 * VEC)
    for (int j = 0; j < 4; j++) {
      vf v = load(x + i + j * VEC);
      square[j] = fma(v, v, square[j]);
    }
  for (; i < width; i += VEC) {
    vf v = load_part(x + i, int(std::min<index_t>(VEC, width - i)));
    square[0] = fma(v, v, square[0]);
  }
  float mean = sum((square[0] + square[1]) + (square[2] + square[3])) / float(width);
  vf factor = splat(1.0f / std::sqrt(mean + eps));
  for (i = 0; i + VEC <= width; i += VEC) store(y + i, load(w + i) * (load(x + i) * factor));
  if (int rest = int(width - i))
    store_part(y + i, load_part(w + i, rest) * (load_part(x + i, rest) * factor), rest);
}

// Products and sums are rounded one by one, as in the reference: the results are equal to the bit.
void rotate(float* x, const float* cos, const float* sin, index_t half) {
  for (index_t i = 0; i < half; i++) {
    float even = x[2 * i], odd = x[2 * i + 1];
    x[2 * i] = even * cos[i] - odd * sin[i];
    x[2 * i + 1] = even * sin[i] + odd * cos[i];
  }
}

// The same for pairs (x[i], x[i + half]).
void rotate_halves(float* x, const float* cos, const float* sin, index_t half) {
  for (index_t i = 0; i < half; i++) {
    float first = x[i], second = x[i + half];
    x[i] = first * cos[i] - second * sin[i];
    x[i + half] = first * sin[i] + second * cos[i];
  }
}

bool all_below(const int* values, index_t n, index_t limit) {
  bool inside = true;
  for (index_t i = 0; i < n; i++) inside &= values[i] >= 0 && values[i] < limit;
  return inside;
}

void put(const float* from, index_t n, float* to) { std::memcpy(to, from, n * sizeof(float)); }

void put(const float* from, index_t n, bf16* to) {
  for (index_t i = 0; i < n; i++) to[i] = narrow(from[i]);
}

}  // namespace

INGLE_API int ingle_rms_norm(const NormArgs* a) {
  with_type(a->bf16, a->weight, [&](auto* weight) {
    int threads = threads_for(double(a->rows) * a->width);
    Pieces rows(a->rows, 1, threads);
    parallel_for(threads, rows.count, [&](index_t i, int) {
      for (index_t n = rows.begin(i); n < rows.end(i); n++)
        norm_row(a->x + n * a->width, weight, a->width, float(a->eps), a->y + n * a->width);
    });
  });
  return OK;
}

INGLE_API int ingle_rope(const RopeArgs* a) {
  if (!all_below(a->positions, a->rows, a->table)) return OUT_OF_RANGE;
  int threads = threads_for(2.0 * a->rows * a->heads * a->half);
  Pieces rows(a->rows, 1, threads);
  parallel_for(threads, rows.count, [&](index_t i, int) {
    for (index_t n = rows.begin(i); n < rows.end(i); n++)
      for (index_t h = 0; h < a->heads; h++) {
        index_t at = a->positions[n] * a->half;
        float* x = a->x + (n * a->heads + h + 1) * a->width - 2 * a->half;
        if (a->half_split)
          rotate_halves(x, a->cos + at, a->sin + at, a->half);
        else
          rotate(x, a->cos + at, a->sin + at, a->half);
      }
  });
  return OK;
}

INGLE_API int ingle_write_latent(const LatentArgs* a) {
  if (!all_below(a->positions, a->rows, a->table) || !all_below(a->slots, a->rows, a->total_slots))
    return OUT_OF_RANGE;
  return guarded([&] {
    Scratch row(a->width);
    index_t rope = a->width - a->rank, half = rope / 2;
    with_type(a->norm_bf16, a->norm, [&](auto* weight) {
      for (index_t n = 0; n < a->rows; n++) {
        const float* kv = a->kv + n * a->width;
        norm_row(kv, weight, a->rank, float(a->eps), row);
        put(kv + a->rank, rope, row + a->rank);
        index_t at = a->positions[n] * half, to = a->slots[n] * a->width;
        rotate(row + a->rank, a->cos + at, a->sin + at, half);
        if (a->cache_bf16)
          put(row, a->width, static_cast<bf16*>(a->cache) + to);
        else
          put(row, a->width, static_cast<float*>(a->cache) + to);
      }
    });
    return int(OK);
  });
}

INGLE_API int ingle_write_keys(const KeysArgs* a) {
  if (!all_below(a->slots, a->rows, a->total_slots)) return OUT_OF_RANGE;
  for (index_t n = 0; n < a->rows; n++) {
    const float *k = a->k + n * a->width, *v = a->v + n * a->width;
    index_t to = a->slots[n] * 2 * a->width;
    if (a->cache_bf16) {
      put(k, a->width, static_cast<bf16*>(a->cache) + to);
      put(v, a->width, static_cast<bf16*>(a->cache) + to + a->width);
    } else {
      put(k, a->width, static_cast<float*>(a->cache) + to);
      put(v, a->width, static_cast<float*>(a->cache) + to + a->width);
    }
  }
  return OK;
}
