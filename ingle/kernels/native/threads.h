// Work shared between threads: the caller takes items one by one, helpers that are awake join in.
//
// Nothing waits for a helper that has not begun. On a machine that is busy with something else a
// call so costs at most what it costs on one thread, where a team that meets at a barrier would
// wait for the scheduler. No result depends on which thread computes it.
#pragma once
#include <algorithm>
#include <cstdlib>
#include <memory>
#include <new>

#include "vec.h"

// How many threads a call with this many multiply-adds should use.
int threads_for(double multiply_adds);

// Call work(context, item, thread) for each item below `items`; threads count from 0, the caller.
typedef void (*Work)(void* context, index_t item, int thread);
void run_items(int threads, index_t items, Work work, void* context);

template <class Body>
inline void parallel_for(int threads, index_t items, Body body) {
  if (threads > 1 && items > 1) {
    Work work = [](void* context, index_t item, int thread) {
      (*static_cast<Body*>(context))(item, thread);
    };
    return run_items(threads, items, work, &body);
  }
  for (index_t item = 0; item < items; item++) body(item, 0);
}

// A length cut into pieces of whole units, a few for each thread, so that a late helper still helps.
struct Pieces {
  index_t total, size, count;
  Pieces(index_t length, index_t unit, int threads) : total(length) {
    index_t units = (length + unit - 1) / unit;
    index_t wanted = threads > 1 ? 4 * threads : 1;
    size = std::max<index_t>(1, (units + wanted - 1) / wanted) * unit;
    count = (length + size - 1) / size;
  }
  index_t begin(index_t piece) const { return piece * size; }
  index_t end(index_t piece) const { return std::min(total, (piece + 1) * size); }
};

// Uninitialised floats from the start of a cache line on, freed with the scope.
struct Scratch {
  std::unique_ptr<float, decltype(&std::free)> memory;
  explicit Scratch(index_t count)
      : memory(static_cast<float*>(std::aligned_alloc(64, size_t(count / 16 + 2) * 64)), &std::free) {
    if (!memory) throw std::bad_alloc();
  }
  operator float*() const { return memory.get(); }
};
