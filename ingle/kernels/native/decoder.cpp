// Decoder layers in one call: the kernels of this folder in the order of models/layers/block.py.
//
// A layer is some fifteen kernels. Called one by one from Python they cost more than a small model
// computes, so the whole stack is run here. Every kernel gets the operands it would get there, so
// the results are equal to the last bit.
#include <algorithm>
#include <vector>

#include "api.h"
#include "threads.h"

namespace {

// Room for everything a layer passes from one kernel to the next.
struct Room {
  std::vector<float> memory;
  float *normed, *low, *q, *kv, *v, *values, *attended, *fed, *shared, *weights;
  std::vector<int> ids;

  Room(const DecoderArgs& a, const Shape& s) : ids(a.rows * s.top_k) {
    // kv: latents, or keys beside the values in v
    index_t sizes[] = {s.width, s.q_rank, s.heads * s.query, s.channels, s.channels, s.heads * s.value,
                       s.width, s.width, s.width, s.top_k};
    float** parts[] = {&normed, &low, &q, &kv, &v, &values, &attended, &fed, &shared, &weights};
    index_t total = 0;
    for (index_t size : sizes) total += a.rows * size;
    memory.resize(total);
    float* next = memory.data();
    for (int i = 0; i < 10; i++) {
      *parts[i] = next;
      next += a.rows * sizes[i];
    }
  }
};

int linear(const float* x, index_t rows, index_t inner, const Weight& w, index_t outs, float* y) {
  LinearArgs args{x, rows, inner, w, outs, y};
  return ingle_linear(&args);
}

int norm(const float* x, index_t rows, index_t width, const Weight& w, double eps, float* y) {
  NormArgs args{x, rows, width, w.data, w.kind, eps, y};
  return ingle_rms_norm(&args);
}

void add(float* x, const float* y, index_t n) {
  for (index_t i = 0; i < n; i++) x[i] += y[i];
}

void add_bias(float* y, index_t rows, index_t width, const Weight& bias) {
  if (!bias.data) return;
  with_type(bias.kind, bias.data, [&](auto* b) {
    for (index_t n = 0; n < rows; n++)
      for (index_t i = 0; i < width; i += VEC) {
        int part = int(std::min<index_t>(VEC, width - i));
        float* to = y + n * width + i;
        store_part(to, load_part(to, part) + load_part(b + i, part), part);
      }
  });
}

int rope_halves(const DecoderArgs& a, const Shape& s, float* x, index_t heads) {
  RopeArgs rope{x, a.rows, heads, s.query, a.cos, a.sin, s.query / 2, a.table_rows, a.positions, 1};
  return ingle_rope(&rope);
}

int grouped_attention(const DecoderArgs& a, const Shape& s, const Layer& l, char* cache, Room& room) {
  index_t rows = a.rows, query = s.heads * s.query, key = s.key_heads * s.query;
  linear(room.normed, rows, s.width, l.q, query, room.q);
  linear(room.normed, rows, s.width, l.k, key, room.kv);
  linear(room.normed, rows, s.width, l.v, key, room.v);
  add_bias(room.q, rows, query, l.q_bias);
  add_bias(room.kv, rows, key, l.k_bias);
  add_bias(room.v, rows, key, l.v_bias);
  if (l.q_norm.data) {
    norm(room.q, rows * s.heads, s.query, l.q_norm, s.eps, room.q);
    norm(room.kv, rows * s.key_heads, s.query, l.k_norm, s.eps, room.kv);
  }
  if (int status = rope_halves(a, s, room.q, s.heads)) return status;
  if (int status = rope_halves(a, s, room.kv, s.key_heads)) return status;
  KeysArgs keys{room.kv, room.v, rows, key, a.slots, cache, a.cache_bf16, a.cache_pages * a.page_tokens};
  if (int status = ingle_write_keys(&keys)) return status;
  GroupedArgs attention{room.q, rows, s.heads, s.query, s.key_heads, cache, a.cache_bf16,
                        a.cache_pages, a.page_tokens, a.pages, a.sequences, a.table_pages,
                        a.sequence, a.positions, s.scale, room.values};
  if (int status = ingle_gqa_attention(&attention)) return status;
  return linear(room.values, rows, query, l.o, s.width, room.attended);
}

int attention(const DecoderArgs& a, const Shape& s, const Layer& l, index_t index, Room& room) {
  char* cache = static_cast<char*>(a.cache) + index * a.cache_layer_bytes;
  if (l.k.data) return grouped_attention(a, s, l, cache, room);
  index_t rows = a.rows, query = s.heads * s.query;
  if (l.q_a.data) {
    linear(room.normed, rows, s.width, l.q_a, s.q_rank, room.low);
    norm(room.low, rows, s.q_rank, l.q_a_norm, s.latent_eps, room.low);
    linear(room.low, rows, s.q_rank, l.q, query, room.q);
  } else {
    linear(room.normed, rows, s.width, l.q, query, room.q);
  }
  index_t half = (s.channels - s.rank) / 2;
  RopeArgs rope{room.q, rows, s.heads, s.query, a.cos, a.sin, half, a.table_rows, a.positions, 0};
  if (int status = ingle_rope(&rope)) return status;
  linear(room.normed, rows, s.width, l.kv_a, s.channels, room.kv);
  LatentArgs latent{room.kv, rows, s.channels, l.kv_norm.data, l.kv_norm.kind, s.rank, s.latent_eps,
                    a.cos, a.sin, a.table_rows, a.positions, a.slots, cache, a.cache_bf16,
                    a.cache_pages * a.page_tokens};
  if (int status = ingle_write_latent(&latent)) return status;
  AttentionArgs attention{room.q, rows, s.heads, s.query, l.kv_b.data, l.kv_b.kind, s.rank, s.value,
                          cache, a.cache_bf16, a.cache_pages, a.page_tokens, s.channels, a.pages,
                          a.sequences, a.table_pages, a.sequence, a.positions, s.scale, room.values};
  if (int status = ingle_mla_attention(&attention)) return status;
  return linear(room.values, rows, s.heads * s.value, l.o, s.width, room.attended);
}

int dense(const DecoderArgs& a, const Shape& s, const Layer& l, const float* x, float* y) {
  MlpArgs args{x, a.rows, s.width, l.gate, l.up, l.down, l.inner, y};
  return ingle_mlp(&args);
}

int feed_forward(const DecoderArgs& a, const Shape& s, const Layer& l, Room& room) {
  if (!l.router.data) return dense(a, s, l, room.normed, room.fed);
  RouteArgs route{room.normed, a.rows, s.width, l.router, l.bias, s.experts, s.groups,
                  s.top_groups, s.top_k, s.normalise, s.softmax, s.route_scale, room.ids.data(), room.weights};
  if (int status = ingle_route(&route)) return status;
  ExpertsArgs experts{room.normed, a.rows, s.width, room.ids.data(), room.weights, s.top_k,
                      l.experts_gate_up, l.experts_down, s.experts, s.expert_inner, room.fed};
  if (int status = ingle_experts(&experts)) return status;
  if (int status = dense(a, s, l, room.normed, room.shared)) return status;
  add(room.fed, room.shared, a.rows * s.width);
  return OK;
}

}  // namespace

INGLE_API int ingle_decoder(const DecoderArgs* a) {
  return guarded([&] {
    const Shape& s = *a->shape;
    Room room(*a, s);
    uint8_t* chosen = a->chosen;
    for (index_t i = 0; i < a->layers; i++) {
      const Layer& l = a->weights[i];
      norm(a->x, a->rows, s.width, l.input_norm, s.eps, room.normed);
      if (int status = attention(*a, s, l, i, room)) return status;
      add(a->x, room.attended, a->rows * s.width);
      norm(a->x, a->rows, s.width, l.post_norm, s.eps, room.normed);
      if (int status = feed_forward(*a, s, l, room)) return status;
      if (chosen && l.router.data) chosen = std::copy(room.ids.begin(), room.ids.end(), chosen);
      add(a->x, room.fed, a->rows * s.width);
    }
    return int(OK);
  });
}
