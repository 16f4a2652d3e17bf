// Grouped-query attention over a paged cache of keys and values.
#include "api.h"
#include "paged.h"
#include "threads.h"

namespace {

template <class T>
void attend_all(const GroupedArgs& a, const Paged& p, const T* cache) {
  std::vector<Unit> units = cut(p, 0, a.rows);
  double work = 0;
  for (index_t n = 0; n < a.rows; n++) work += 2.0 * double(a.positions[n] + 1) * a.heads * a.width;
  int threads = threads_for(work);
  index_t share = a.heads / a.key_heads, pieces = (share + UNIT_HEADS - 1) / UNIT_HEADS;
  View any{0, a.width, a.key_heads * a.width, a.width};
  Scratch wide(threads * any.room());
  index_t row = a.heads * a.width, per_unit = a.key_heads * pieces;
  parallel_for(threads, index_t(units.size()) * per_unit, [&](index_t item, int thread) {
    const Unit& unit = units[item / per_unit];
    index_t key_head = item % per_unit / pieces, first = item % pieces * UNIT_HEADS;
    index_t heads = std::min<index_t>(UNIT_HEADS, share - first);
    View view{key_head * a.width, a.width, (a.key_heads + key_head) * a.width, a.width};
    index_t at = unit.begin * row + (key_head * share + first) * a.width;
    attend_unit(p, cache, unit, view, heads, a.q + at, row, a.y + at, row, wide + thread * any.room());
  });
}

}  // namespace

INGLE_API int ingle_gqa_attention(const GroupedArgs* a) {
  Paged p{a->rows,      a->table,       a->sequences,   a->table_pages,
          a->sequence,  a->positions,   a->cache_pages, a->page_tokens,
          2 * a->key_heads * a->width,  float(a->scale)};
  if (a->heads % a->key_heads || !p.in_range()) return OUT_OF_RANGE;
  return guarded([&] {
    with_type(a->cache_bf16, a->cache, [&](auto* cache) { attend_all(*a, p, cache); });
    return int(OK);
  });
}
