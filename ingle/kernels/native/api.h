// What the shared object exports, the results its functions return, and the choice of weight type.
#pragma once
#include <new>

#include "vec.h"

#define INGLE_API extern "C" __attribute__((visibility("default")))

// Arguments arrive packed in one struct of 8-byte fields, so that a call from Python converts a
// single pointer. Field order and types are the formats in ingle/kernels/cpu.py. Weights are
// `void` with a flag: 1 for bf16, 0 for fp32. Shapes are those of ingle/kernels/reference.py.
static_assert(sizeof(void*) == 8, "64-bit machines only");

// How a weight is stored: kernels/quantized.py has the formats.
enum Kind { FP32 = 0, BF16 = 1, INT8 = 2, INT4 = 3, FP8 = 4 };

struct Weight {
  const void *data, *scale;  // null where absent
  index_t kind;
};

struct LinearArgs {
  const float* x;
  index_t rows, inner;
  Weight weight;
  index_t outs;
  float* y;
};

struct NormArgs {
  const float* x;
  index_t rows, width;
  const void* weight;
  index_t bf16;
  double eps;
  float* y;
};

struct RopeArgs {
  float* x;
  index_t rows, heads, width;
  const float *cos, *sin;
  index_t half, table;
  const int* positions;
  index_t half_split;
};

struct LatentArgs {
  const float* kv;
  index_t rows, width;
  const void* norm;
  index_t norm_bf16, rank;
  double eps;
  const float *cos, *sin;
  index_t table;
  const int *positions, *slots;
  void* cache;
  index_t cache_bf16, total_slots;
};

struct AttentionArgs {
  const float* q;
  index_t rows, heads, width;
  const void* kv_b;
  index_t kv_b_bf16, rank, value;
  const void* cache;
  index_t cache_bf16, cache_pages, page_tokens, channels;
  const int* table;
  index_t sequences, table_pages;
  const int *sequence, *positions;
  double scale;
  float* y;
};

struct KeysArgs {
  const float *k, *v;
  index_t rows, width;  // of k and of v
  const int* slots;
  void* cache;
  index_t cache_bf16, total_slots;
};

struct GroupedArgs {
  const float* q;
  index_t rows, heads, width, key_heads;
  const void* cache;
  index_t cache_bf16, cache_pages, page_tokens;
  const int* table;
  index_t sequences, table_pages;
  const int *sequence, *positions;
  double scale;
  float* y;
};

// Rows of every head of a stream: head h of token t begins at data[t * row + h * head].
template <class T>
struct Heads {
  T* data;
  index_t row, head;
};

// Attention of training: see documents.cpp. Where `rotary` is not 0, that many last values of a query are
// still to be turned to their position, and those of a key, which are not in k, are one row of `key`, to be
// turned, too, for all heads of a token. cos, sin: [tokens][rotary / 2].
struct Documents {
  Heads<const float> q, k, v;
  index_t tokens, heads, width, value;
  const int* starts;
  double scale;
  index_t rotary;
  const float* key;
  index_t key_row;
  const float *cos, *sin;
};

struct DocumentsArgs {
  Documents common;
  float *y, *log_sum;
};

struct DocumentsGradArgs {
  Documents common;
  const float *log_sum, *y_grad;
  Heads<float> q_grad, k_grad, v_grad;
  float* key_grad;  // [tokens][rotary]
};

struct RouteArgs {
  const float* x;
  index_t rows, width;
  Weight gate;
  const float* bias;
  index_t experts, groups, top_groups, top_k, normalise, softmax;
  double scale;
  int* ids;
  float* weights;
};

struct MlpArgs {
  const float* x;
  index_t rows, width;
  Weight gate, up, down;
  index_t inner;
  float* y;
};

struct ExpertsArgs {
  const float* x;
  index_t rows, width;
  const int* ids;
  const float* weights;
  index_t top_k;
  Weight gate_up, down;
  index_t experts, inner;
  float* y;
};

// Feed-forward of training: see feedforward.cpp. Rows of `pre` and of the first weight: gate, then up. Experts
// lie in one or two stacks, which count on; without a second one its experts are 0.
struct FeedForward {
  const float* x;
  index_t rows, width;
  const int* ids;
  const float* weights;
  index_t top_k;
  const float *gate_up[2], *down[2];
  index_t experts[2], inner;
};

struct FeedForwardArgs {
  FeedForward common;
  float *pre, *y;
};

struct FeedForwardGradArgs {
  FeedForward common;
  const float *pre, *y_grad;
  float *x_grad, *weights_grad, *gate_up_grad[2], *down_grad[2];
  index_t learns;  // 0: without the last two
};

// One or two matrices [outs, inner] applied to the same rows: see projection.cpp. Without a second one
// its outs are 0.
struct Projection {
  const float* x;
  index_t rows, inner;
  const float* weight[2];
  index_t outs[2];
};

struct ProjectionArgs {
  Projection common;
  float* y[2];
};

struct ProjectionGradArgs {
  Projection common;
  const float* y_grad[2];
  float *x_grad, *weight_grad[2];
  index_t learns;  // 0: without the last two
};

// See crossentropy.cpp. Rows with a negative target have no loss.
struct CrossEntropyArgs {
  const float* x;
  index_t rows, width;
  const float* weight;
  index_t vocabulary;
  const int* targets;
  float *total, *x_grad, *weight_grad;
  index_t learns;  // 0: without the last one
};

struct QuantizeArgs {
  const void* weight;
  index_t bf16, outs, inner, kind;
  const float* importance;  // of each input, or null
  uint8_t* data;
  struct bf16* scale;
};

// A whole decoder: see decoder.cpp. Absent weights are null.
struct Layer {
  Weight input_norm, o, post_norm;
  Weight q_a, q_a_norm, q, kv_a, kv_norm, kv_b;                   // latent attention
  Weight k, v, q_bias, k_bias, v_bias, q_norm, k_norm;            // grouped-query attention, and q
  Weight router, experts_gate_up, experts_down, gate, up, down;
  const float* bias;
  index_t inner;  // of gate, up and down: the dense layer's or the shared expert's
};

struct Shape {
  index_t width, heads, key_heads, query, q_rank, rank, channels, value;
  index_t experts, expert_inner, groups, top_groups, top_k, normalise, softmax;
  double route_scale, eps, latent_eps, scale;
};

static_assert(sizeof(Layer) == 68 * 8 && sizeof(Shape) == 19 * 8, "the formats in kernels/decoder.py");

struct DecoderArgs {
  const Shape* shape;
  const Layer* weights;
  index_t layers;
  float* x;
  index_t rows;
  const int *positions, *slots, *sequence, *pages;
  index_t sequences, table_pages;
  const float *cos, *sin;
  index_t table_rows;
  void* cache;
  index_t cache_layer_bytes, cache_bf16, cache_pages, page_tokens;
  uint8_t* chosen;  // experts of each row, a mixture layer after the other, or null
};

INGLE_API int ingle_linear(const LinearArgs*);
INGLE_API int ingle_rms_norm(const NormArgs*);
INGLE_API int ingle_rope(const RopeArgs*);
INGLE_API int ingle_write_latent(const LatentArgs*);
INGLE_API int ingle_mla_attention(const AttentionArgs*);
INGLE_API int ingle_write_keys(const KeysArgs*);
INGLE_API int ingle_gqa_attention(const GroupedArgs*);
INGLE_API int ingle_route(const RouteArgs*);
INGLE_API int ingle_mlp(const MlpArgs*);
INGLE_API int ingle_experts(const ExpertsArgs*);
INGLE_API int ingle_projection(const ProjectionArgs*);
INGLE_API int ingle_projection_grad(const ProjectionGradArgs*);
INGLE_API int ingle_cross_entropy(const CrossEntropyArgs*);
INGLE_API int ingle_feed_forward(const FeedForwardArgs*);
INGLE_API int ingle_feed_forward_grad(const FeedForwardGradArgs*);

namespace {

enum Status { OK = 0, OUT_OF_RANGE = 1, OUT_OF_MEMORY = 2 };

// Call body with `data` as fp32 or bf16 values.
template <class Body>
inline auto with_type(index_t is_bf16, const void* data, Body body) {
  return is_bf16 ? body(static_cast<const bf16*>(data)) : body(static_cast<const float*>(data));
}

// No exception may cross the C boundary.
template <class Body>
inline int guarded(Body body) {
  try {
    return body();
  } catch (const std::bad_alloc&) {
    return OUT_OF_MEMORY;
  }
}

}  // namespace
