// Absorbed multi-head latent attention over a paged cache.
//
// Three passes: the query is carried into the latent space head by head; each row runs over its
// pages with an online softmax; the latent result is carried out to the values. Order of the sums
// for a row: its positions, block by block from 0. Keys past the row's own position are not
// touched, so whatever a page held before cannot leak in.
#include <vector>

#include "api.h"
#include "block.h"
#include "threads.h"

namespace {

constexpr int KEYS = 64;              // keys per softmax step
constexpr int UNIT_ROWS = 16;         // rows of one sequence that share a page while it is cached
constexpr int UNIT_HEADS = 16;        // heads of a unit
constexpr index_t SCRATCH = 4 << 20;  // floats held for the rows of one round

// Consecutive rows of one sequence.
struct Unit {
  index_t begin, end, length;
};

struct Softmax {
  float top, total;
};

// Turn a row's scores into weights relative to the largest score so far; returns the factor that
// carries what was summed under the old largest over to the new one.
float weigh(float* scores, int count, float scale, Softmax& state) {
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

// One softmax step of one row: `heads` heads against `count` keys.
void attend(const float* q, index_t heads, const float* keys, const AttentionArgs& a, int count, bool first,
            float* scores, Softmax* state, float* latent) {
  dot_block(q, a.channels, heads, keys, a.channels, count, a.channels, scores, KEYS);
  for (index_t h = 0; h < heads; h++) {
    float factor = weigh(scores + h * KEYS, count, float(a.scale), state[h]);
    if (factor != 1.0f && !first)
      for (index_t l = 0; l < a.rank; l++) latent[h * a.rank + l] *= factor;
  }
  axpy_block(scores, KEYS, heads, keys, a.channels, count, int(a.rank), latent, a.rank, !first);
}

const float* block_keys(const float* keys, index_t, float*) { return keys; }

const float* block_keys(const bf16* keys, index_t n, float* wide) {
  widen(keys, n, wide);
  return wide;
}

// All positions of a unit's rows for `heads` heads. `wide` holds KEYS keys.
template <class T>
void run_unit(const AttentionArgs& a, const T* cache, const Unit& unit, index_t first_head,
              index_t heads, index_t base, const float* q_latent, float* latent, float* wide) {
  alignas(64) float scores[UNIT_HEADS * KEYS];
  Softmax state[UNIT_ROWS][UNIT_HEADS];
  for (auto& row : state)
    for (auto& head : row) head = {-INFINITY, 0.0f};
  const int* pages = a.table + a.sequence[unit.begin] * a.table_pages;
  for (index_t t = 0; t < unit.length;) {
    index_t offset = t % a.page_tokens;
    index_t step = std::min({index_t(KEYS), a.page_tokens - offset, unit.length - t});
    const T* stored = cache + (pages[t / a.page_tokens] * a.page_tokens + offset) * a.channels;
    const float* keys = block_keys(stored, step * a.channels, wide);
    for (index_t n = unit.begin; n < unit.end; n++) {
      index_t count = std::min<index_t>(step, a.positions[n] + 1 - t), at = (n - base) * a.heads + first_head;
      if (count > 0)
        attend(q_latent + at * a.channels, heads, keys, a, int(count), t == 0, scores,
               state[n - unit.begin], latent + at * a.rank);
    }
    t += step;
  }
  for (index_t n = unit.begin; n < unit.end; n++)
    for (index_t head = 0; head < heads; head++) {
      float* row = latent + ((n - base) * a.heads + first_head + head) * a.rank;
      float factor = 1.0f / state[n - unit.begin][head].total;
      for (index_t l = 0; l < a.rank; l++) row[l] *= factor;
    }
}

// Units of the rows [begin, end).
std::vector<Unit> cut(const AttentionArgs& a, index_t begin, index_t end) {
  std::vector<Unit> units;
  for (index_t n = begin; n < end; n++) {
    index_t length = a.positions[n] + 1;
    if (n > begin && a.sequence[n] == a.sequence[n - 1] && n - units.back().begin < UNIT_ROWS) {
      units.back().end = n + 1;
      units.back().length = std::max(units.back().length, length);
    } else {
      units.push_back({n, n + 1, length});
    }
  }
  return units;
}

// Rows [begin, end) through all three passes.
template <class W, class T>
void run_round(const AttentionArgs& a, const W* kv_b, const T* cache, index_t begin, index_t end,
               float* q_latent, float* latent) {
  index_t rows = end - begin, nope = a.width - (a.channels - a.rank), per_head = nope + a.value;
  std::vector<Unit> units = cut(a, begin, end);
  double work = double(rows) * a.heads * per_head * a.rank;
  for (index_t n = begin; n < end; n++)
    work += double(a.positions[n] + 1) * a.heads * (a.channels + a.rank);
  int threads = threads_for(work);
  Pieces heads(a.heads, 1, threads);
  // groups of heads for the second pass: as many as a unit holds, fewer when rows are few
  index_t group = std::min<index_t>(a.heads, UNIT_HEADS), few = index_t(units.size());
  if (few < threads) group = std::min(group, (a.heads * few + threads - 1) / threads);
  index_t groups = (a.heads + group - 1) / group;
  Scratch wide(index_t(threads) * KEYS * a.channels);
  parallel_for(threads, heads.count, [&](index_t i, int) {
    for (index_t h = heads.begin(i); h < heads.end(i); h++) {
      const float* q = a.q + (begin * a.heads + h) * a.width;
      float* to = q_latent + h * a.channels;
      axpy_block(q, a.heads * a.width, rows, kv_b + h * per_head * a.rank, a.rank, int(nope),
                 int(a.rank), to, a.heads * a.channels, false);
      for (index_t n = 0; n < rows; n++)
        std::memcpy(to + n * a.heads * a.channels + a.rank, q + n * a.heads * a.width + nope,
                    (a.channels - a.rank) * sizeof(float));
    }
  });
  parallel_for(threads, few * groups, [&](index_t item, int thread) {
    index_t h = item % groups * group, count = std::min(group, a.heads - h);
    run_unit(a, cache, units[item / groups], h, count, begin, q_latent, latent,
             wide + thread * KEYS * a.channels);
  });
  parallel_for(threads, heads.count, [&](index_t i, int) {
    for (index_t h = heads.begin(i); h < heads.end(i); h++)
      dot_block(latent + h * a.rank, a.heads * a.rank, rows, kv_b + (h * per_head + nope) * a.rank,
                a.rank, a.value, a.rank, a.y + (begin * a.heads + h) * a.value, a.heads * a.value);
  });
}

// Every index a row leads to lies inside its table and the cache.
bool in_range(const AttentionArgs& a) {
  for (index_t n = 0; n < a.rows; n++) {
    index_t p = a.positions[n], s = a.sequence[n];
    if (s < 0 || s >= a.sequences || p < 0 || p >= a.table_pages * a.page_tokens) return false;
    // of neighbours in one sequence only the furthest position needs its pages looked at
    if (n + 1 < a.rows && a.sequence[n + 1] == s && a.positions[n + 1] >= p) continue;
    for (index_t i = 0; i <= p / a.page_tokens; i++) {
      index_t page = a.table[s * a.table_pages + i];
      if (page < 0 || page >= a.cache_pages) return false;
    }
  }
  return true;
}

}  // namespace

INGLE_API int ingle_mla_attention(const AttentionArgs* a) {
  if (!in_range(*a)) return OUT_OF_RANGE;
  return guarded([&] {
    index_t round = std::max<index_t>(UNIT_ROWS, SCRATCH / (a->heads * (a->channels + a->rank)));
    round = std::min(round, a->rows);
    Scratch q_latent(round * a->heads * a->channels), latent(round * a->heads * a->rank);
    for (index_t n = 0; n < a->rows; n += round)
      with_type(a->kv_b_bf16, a->kv_b, [&](auto* weight) {
        with_type(a->cache_bf16, a->cache, [&](auto* latents) {
          run_round(*a, weight, latents, n, std::min(n + round, a->rows), q_latent, latent);
        });
      });
    return int(OK);
  });
}
