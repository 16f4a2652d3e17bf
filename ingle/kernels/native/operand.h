// A block of rows times a weight of any storage: what linear layers, experts and routers call.
//
// fp32 and bf16 weights multiply the rows as they are; fp8 blocks are widened tile by tile. int8 and
// int4 weights multiply rows that are rounded to int8 in groups of GROUP values, each with its own
// scale: products are then exact integers. Whatever the storage, a row's result depends on that row
// and the weight alone.
#pragma once
#include <vector>

#include "api.h"
#include "block.h"

constexpr index_t GROUP = 64;  // weights, and values of a row, that share a scale

inline index_t groups_of(index_t inner) { return (inner + GROUP - 1) / GROUP; }

// Rows rounded to int8, zeros after the last value. offset: 8 * scale * sum of a group, which is
// what int4 weights, stored as 0..15 for -8..7, add too much.
struct RoundedRows {
  std::vector<int8_t> values;
  std::vector<float> scale, offset;
  index_t stride = 0;  // of scale and offset, per row
};

class Operand {
 public:
  const float* x;
  index_t rows, inner;

  Operand(const float* x, index_t rows, index_t inner) : x(x), rows(rows), inner(inner) {}

  // To be called once before `times`, from one thread, with each weight that follows.
  void prepare(const Weight& w, int threads);

  // y[r][o] for `count` rows from `row` on and outputs [out, out + outs); y points to the first.
  void times(const Weight& w, index_t row, index_t count, index_t out, index_t outs, float* y,
             index_t ldy) const;

 private:
  RoundedRows rounded;
};

// The matrix of one expert in a stack of [experts, outs, inner].
Weight expert_of(const Weight& stack, index_t expert, index_t outs, index_t inner);
