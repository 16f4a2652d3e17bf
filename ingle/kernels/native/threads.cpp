// The pool behind parallel_for.
#include "threads.h"

#include <pthread.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <system_error>
#include <thread>

#include "api.h"

namespace {

// Multiply-adds that pay for one more thread: measured on calls that follow each other closely.
constexpr double GRAIN = 200e3;
// How long a helper looks for the next call before it sleeps: longer than the gap between two
// calls of a decode step, far shorter than the gap between two requests.
constexpr auto PATIENCE = std::chrono::microseconds(100);

struct Job {
  Work work;
  void* context;
  index_t items;
  int helpers;
  std::atomic<index_t> next{0};

  void run(int thread) {
    for (index_t item; (item = next.fetch_add(1, std::memory_order_relaxed)) < items;)
      work(context, item, thread);
  }
};

struct Pool {
  std::mutex mutex;  // guards going to sleep and waking
  std::condition_variable wake;
  std::atomic<int> limit{1};
  std::atomic<bool> busy{false};  // one caller at a time has the helpers, others run alone
  std::atomic<Job*> job{nullptr};
  std::atomic<uint32_t> posted{0};  // jobs so far: what helpers watch
  std::atomic<int> inside{0};       // helpers that may hold a pointer to the job
  std::atomic<int> sleeping{0};
  int helpers = 0;  // changed by the one caller only
};

// Never destroyed: helpers may outlive every static object at exit.
Pool* the_pool = new Pool;

Pool& pool() { return *the_pool; }

// A forked child has none of its parent's threads: it starts its own when it needs them.
void start_anew() {
  int limit = pool().limit;
  the_pool = new Pool;
  the_pool->limit = limit;
}

const int registered = pthread_atfork(nullptr, nullptr, start_anew);

inline void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

void wait_for_job(Pool& p, uint32_t seen) {
  auto until = std::chrono::steady_clock::now() + PATIENCE;
  do {
    for (int i = 0; i < 64; i++) {
      if (p.posted.load() != seen) return;
      pause();
    }
  } while (std::chrono::steady_clock::now() < until);
  std::unique_lock<std::mutex> lock(p.mutex);
  p.sleeping++;
  p.wake.wait(lock, [&] { return p.posted.load() != seen; });
  p.sleeping--;
}

void help(Pool& p, int number, uint32_t seen) {
  for (;;) {
    wait_for_job(p, seen);
    seen = p.posted.load();
    p.inside++;  // before the pointer is read: the caller takes it back, then waits for 0
    Job* job = p.job.load();
    if (job && number <= job->helpers) job->run(number);
    p.inside--;
  }
}

// Start missing helpers; fewer where the system gives no more threads.
void grow(Pool& p, int wanted) {
  try {
    for (; p.helpers < wanted; p.helpers++)
      std::thread(help, std::ref(p), p.helpers + 1, p.posted.load()).detach();
  } catch (const std::system_error&) {
    p.limit = p.helpers + 1;
  }
}

}  // namespace

int threads_for(double multiply_adds) {
  if (multiply_adds < 2 * GRAIN) return 1;
  return int(std::min<double>(pool().limit.load(std::memory_order_relaxed), multiply_adds / GRAIN));
}

void run_items(int threads, index_t items, Work work, void* context) {
  Pool& p = pool();
  Job job{work, context, items, int(std::min<index_t>(threads, items)) - 1};
  if (p.busy.exchange(true)) return job.run(0);
  grow(p, job.helpers);
  p.job = &job;
  p.posted++;
  if (p.sleeping.load() > 0) {
    std::lock_guard<std::mutex> lock(p.mutex);
    p.wake.notify_all();
  }
  job.run(0);
  p.job = nullptr;
  for (int i = 0; p.inside.load() != 0; i++)
    if (i < 1000)
      pause();
    else
      std::this_thread::yield();  // the helper may be waiting for this very core
  p.busy = false;
}

INGLE_API void ingle_set_threads(int threads) { pool().limit = std::max(1, threads); }

INGLE_API int ingle_get_threads() { return pool().limit; }
