// Absorbed multi-head latent attention over a paged cache.
//
// Three passes: the query is carried into the latent space head by head; each row runs over its
// pages (paged.h); the latent result is carried out to the values.
#include <vector>

#include "api.h"
#include "block.h"
#include "paged.h"
#include "threads.h"

namespace {

constexpr index_t SCRATCH = 4 << 20;  // floats held for the rows of one round

Paged paged(const AttentionArgs& a) {
  return {a.rows,      a.table,       a.sequences,   a.table_pages, a.sequence,
          a.positions, a.cache_pages, a.page_tokens, a.channels,    float(a.scale)};
}

// Rows [begin, end) through all three passes.
template <class W, class T>
void run_round(const AttentionArgs& a, const W* kv_b, const T* cache, index_t begin, index_t end,
               float* q_latent, float* latent) {
  index_t rows = end - begin, nope = a.width - (a.channels - a.rank), per_head = nope + a.value;
  Paged p = paged(a);
  View view{0, a.channels, 0, a.rank};
  std::vector<Unit> units = cut(p, begin, end);
  double work = double(rows) * a.heads * per_head * a.rank;
  for (index_t n = begin; n < end; n++)
    work += double(a.positions[n] + 1) * a.heads * (a.channels + a.rank);
  int threads = threads_for(work);
  Pieces heads(a.heads, 1, threads);
  // groups of heads for the second pass: as many as a unit holds, fewer when rows are few
  index_t group = std::min<index_t>(a.heads, UNIT_HEADS), few = index_t(units.size());
  if (few < threads) group = std::min(group, (a.heads * few + threads - 1) / threads);
  index_t groups = (a.heads + group - 1) / group;
  Scratch wide(threads * view.room());
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
    const Unit& unit = units[item / groups];
    index_t at = (unit.begin - begin) * a.heads + h;
    attend_unit(p, cache, unit, view, count, q_latent + at * a.channels, a.heads * a.channels,
                latent + at * a.rank, a.heads * a.rank, wide + thread * view.room());
  });
  parallel_for(threads, heads.count, [&](index_t i, int) {
    for (index_t h = heads.begin(i); h < heads.end(i); h++)
      dot_block(latent + h * a.rank, a.heads * a.rank, rows, kv_b + (h * per_head + nope) * a.rank,
                a.rank, a.value, a.rank, a.y + (begin * a.heads + h) * a.value, a.heads * a.value);
  });
}

}  // namespace

INGLE_API int ingle_mla_attention(const AttentionArgs* a) {
  if (!paged(*a).in_range()) return OUT_OF_RANGE;
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
