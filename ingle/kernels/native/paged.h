// Attention of rows over a paged cache, shared by latent and grouped-query attention.
//
// Each row runs over its pages with an online softmax. Order of the sums for a row: its positions,
// block by block from 0. Keys past the row's own position are not touched, so whatever a page held
// before cannot leak in.
#pragma once
#include <algorithm>
#include <vector>

#include "block.h"

namespace {

constexpr int KEYS = 64;        // keys per softmax step
constexpr int UNIT_ROWS = 16;   // rows of one sequence that share a page while it is cached
constexpr int UNIT_HEADS = 16;  // heads of a unit

// Where the rows of a step find their keys: see models/batch.py.
struct Paged {
  index_t rows;
  const int* table;
  index_t sequences, table_pages;
  const int *sequence, *positions;
  index_t cache_pages, page_tokens, channels;
  float scale;

  // Every index a row leads to lies inside its table and the cache.
  bool in_range() const {
    for (index_t n = 0; n < rows; n++) {
      index_t p = positions[n], s = sequence[n];
      if (s < 0 || s >= sequences || p < 0 || p >= table_pages * page_tokens) return false;
      // of neighbours in one sequence only the furthest position needs its pages looked at
      if (n + 1 < rows && sequence[n + 1] == s && positions[n + 1] >= p) continue;
      for (index_t i = 0; i <= p / page_tokens; i++) {
        index_t page = table[s * table_pages + i];
        if (page < 0 || page >= cache_pages) return false;
      }
    }
    return true;
  }
};

// Consecutive rows of one sequence.
struct Unit {
  index_t begin, end, length;
};

// Units of the rows [begin, end).
inline std::vector<Unit> cut(const Paged& p, index_t begin, index_t end) {
  std::vector<Unit> units;
  for (index_t n = begin; n < end; n++) {
    index_t length = p.positions[n] + 1;
    if (n > begin && p.sequence[n] == p.sequence[n - 1] && n - units.back().begin < UNIT_ROWS) {
      units.back().end = n + 1;
      units.back().length = std::max(units.back().length, length);
    } else {
      units.push_back({n, n + 1, length});
    }
  }
  return units;
}

// Which channels of a cached row are a head's key and value.
struct View {
  index_t key_at, key_width, value_at, value_width;

  bool value_inside_key() const {
    return value_at >= key_at && value_at + value_width <= key_at + key_width;
  }
  // Floats that KEYS widened rows take.
  index_t room() const { return KEYS * (key_width + (value_inside_key() ? 0 : value_width)); }
};

struct Block {
  const float *keys, *values;
  index_t key_step, value_step;
};

inline Block block_of(const float* stored, index_t, index_t channels, const View& v, float*) {
  return {stored + v.key_at, stored + v.value_at, channels, channels};
}

inline Block block_of(const bf16* stored, index_t count, index_t channels, const View& v, float* wide) {
  float* values = wide + KEYS * v.key_width;
  for (index_t t = 0; t < count; t++) {
    widen(stored + t * channels + v.key_at, v.key_width, wide + t * v.key_width);
    if (!v.value_inside_key())
      widen(stored + t * channels + v.value_at, v.value_width, values + t * v.value_width);
  }
  if (v.value_inside_key()) return {wide, wide + (v.value_at - v.key_at), v.key_width, v.key_width};
  return {wide, values, v.key_width, v.value_width};
}

struct Softmax {
  float top, total;
};

// Turn a row's scores into weights relative to the largest score so far; returns the factor that
// carries what was summed under the old largest over to the new one.
inline float weigh(float* scores, int count, float scale, Softmax& state) {
  int padded = (count + VEC - 1) / VEC * VEC;
  for (int i = count; i < padded; i++) scores[i] = -INFINITY;  // weighs exactly nothing
  vf top = splat(state.top);
  for (int i = 0; i < padded; i += VEC) {
    vf s = load(scores + i) * scale;
    store(scores + i, s);
    top = max(s, top);
  }
  float largest_score = largest(top);
  vf total = {};
  for (int i = 0; i < padded; i += VEC) {
    vf w = exp(load(scores + i) - largest_score);
    store(scores + i, w);
    total += w;
  }
  float factor = largest_score > state.top ? exp(splat(state.top - largest_score))[0] : 1.0f;
  state = {largest_score, state.total * factor + sum(total)};
  return factor;
}

// `heads` consecutive heads of one unit's rows over all their positions. q and out point to the
// first of them in the first row; rows lie q_row and out_row apart, heads their own width.
template <class T>
void attend_unit(const Paged& p, const T* cache, const Unit& unit, const View& v, index_t heads,
                 const float* q, index_t q_row, float* out, index_t out_row, float* wide) {
  alignas(64) float scores[UNIT_HEADS * KEYS];
  Softmax state[UNIT_ROWS][UNIT_HEADS];
  for (auto& row : state)
    for (auto& head : row) head = {-INFINITY, 0.0f};
  const int* pages = p.table + p.sequence[unit.begin] * p.table_pages;
  for (index_t t = 0; t < unit.length;) {
    index_t offset = t % p.page_tokens;
    index_t step = std::min({index_t(KEYS), p.page_tokens - offset, unit.length - t});
    const T* stored = cache + (pages[t / p.page_tokens] * p.page_tokens + offset) * p.channels;
    Block block = block_of(stored, step, p.channels, v, wide);
    for (index_t n = unit.begin; n < unit.end; n++) {
      int count = int(std::min<index_t>(step, p.positions[n] + 1 - t));
      if (count <= 0) continue;
      float* to = out + (n - unit.begin) * out_row;
      dot_block(q + (n - unit.begin) * q_row, v.key_width, heads, block.keys, block.key_step, count,
                v.key_width, scores, KEYS);
      for (index_t h = 0; h < heads; h++) {
        float factor = weigh(scores + h * KEYS, count, p.scale, state[n - unit.begin][h]);
        if (factor != 1.0f && t > 0)
          for (index_t l = 0; l < v.value_width; l++) to[h * v.value_width + l] *= factor;
      }
      axpy_block(scores, KEYS, heads, block.values, block.value_step, count, int(v.value_width), to,
                 v.value_width, t > 0);
    }
    t += step;
  }
  for (index_t n = unit.begin; n < unit.end; n++)
    for (index_t h = 0; h < heads; h++) {
      float* row = out + (n - unit.begin) * out_row + h * v.value_width;
      float factor = 1.0f / state[n - unit.begin][h].total;
      for (index_t l = 0; l < v.value_width; l++) row[l] *= factor;
    }
}

}  // namespace
