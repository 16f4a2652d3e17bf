// Products with quantised weights; see operand.h.
#include "operand.h"

#include <algorithm>

#include "threads.h"

namespace {

constexpr index_t BLOCK = 128;  // side of a square of fp8 weights that shares a scale
constexpr index_t CHUNK = 1024;  // widened fp8 weights per pass and output
constexpr int TILE_ROWS = 4;

// A bf16 scale as a float.
inline float wide(bf16 a) {
  uint32_t bits = uint32_t(a.bits) << 16;
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)

inline __m256i bytes(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }

inline __m256 wide8(const bf16* p) {
  __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}

inline float total(__m256 a) {
  __m128 four = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
}

// Sums of products of unsigned with signed bytes, in eight lanes. No step overflows: see operand.h
// for the ranges, and int8 weights never hold -128.
struct Int4 {
  static constexpr index_t BYTES = GROUP / 2;
  __m256i low, high;
  explicit Int4(const uint8_t* w) {
    const __m256i mask = _mm256_set1_epi8(15);
    low = _mm256_and_si256(bytes(w), mask);
    high = _mm256_and_si256(_mm256_srli_epi16(bytes(w), 4), mask);
  }
  __m256i dot(const int8_t* x) const {
    __m256i sums = _mm256_add_epi16(_mm256_maddubs_epi16(low, bytes(x)),
                                    _mm256_maddubs_epi16(high, bytes(x + 32)));
    return _mm256_madd_epi16(sums, _mm256_set1_epi16(1));
  }
};

struct Int8 {
  static constexpr index_t BYTES = GROUP;
  __m256i first, second;
  explicit Int8(const uint8_t* w) : first(bytes(w)), second(bytes(w + 32)) {}
  static __m256i half(__m256i w, const int8_t* x) {
    __m256i sums = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(bytes(x), w));
    return _mm256_madd_epi16(sums, _mm256_set1_epi16(1));
  }
  __m256i dot(const int8_t* x) const { return _mm256_add_epi32(half(first, x), half(second, x + 32)); }
};

// One output for R rows: groups in order, the offsets of int4 taken off at the end.
template <class W, int R>
void dot_rows(const RoundedRows& x, index_t row, index_t groups, const uint8_t* w, const bf16* scale,
              float* y, index_t ldy) {
  __m256 acc[R] = {}, off[R] = {};
  for (index_t g0 = 0; g0 < groups; g0 += 8) {
    int many = int(std::min<index_t>(8, groups - g0));
    bf16 tail[8] = {};
    if (many < 8) std::memcpy(tail, scale + g0, many * sizeof(bf16));
    __m256 weight_scale = wide8(many < 8 ? tail : scale + g0);
    alignas(32) float shares[R][8];
    for (int r = 0; r < R; r++) {
      index_t at = (row + r) * x.stride + g0;
      _mm256_store_ps(shares[r], _mm256_mul_ps(weight_scale, _mm256_loadu_ps(&x.scale[at])));
      off[r] = _mm256_fmadd_ps(weight_scale, _mm256_loadu_ps(&x.offset[at]), off[r]);
    }
    for (int g = 0; g < many; g++) {
      W group(w + (g0 + g) * W::BYTES);
      for (int r = 0; r < R; r++) {
        const int8_t* values = &x.values[((row + r) * groups + g0 + g) * GROUP];
        __m256 sums = _mm256_cvtepi32_ps(group.dot(values));
        acc[r] = _mm256_fmadd_ps(sums, _mm256_broadcast_ss(&shares[r][g]), acc[r]);
      }
    }
  }
  for (int r = 0; r < R; r++) y[r * ldy] = total(acc[r]) - (W::BYTES < GROUP ? total(off[r]) : 0.0f);
}

#else

struct Int4 {
  static constexpr index_t BYTES = GROUP / 2;
  const uint8_t* w;
  explicit Int4(const uint8_t* w) : w(w) {}
  int dot(const int8_t* x) const {
    int total = 0;
    for (int i = 0; i < 32; i++) total += (w[i] & 15) * x[i] + (w[i] >> 4) * x[i + 32];
    return total;
  }
};

struct Int8 {
  static constexpr index_t BYTES = GROUP;
  const int8_t* w;
  explicit Int8(const uint8_t* w) : w(reinterpret_cast<const int8_t*>(w)) {}
  int dot(const int8_t* x) const {
    int total = 0;
    for (int i = 0; i < GROUP; i++) total += w[i] * x[i];
    return total;
  }
};

template <class W, int R>
void dot_rows(const RoundedRows& x, index_t row, index_t groups, const uint8_t* w, const bf16* scale,
              float* y, index_t ldy) {
  for (int r = 0; r < R; r++) {
    float sum = 0, off = 0;
    for (index_t g = 0; g < groups; g++) {
      index_t at = (row + r) * x.stride + g;
      const int8_t* values = &x.values[((row + r) * groups + g) * GROUP];
      sum += float(W(w + g * W::BYTES).dot(values)) * (wide(scale[g]) * x.scale[at]);
      off += wide(scale[g]) * x.offset[at];
    }
    y[r * ldy] = sum - (W::BYTES < GROUP ? off : 0.0f);
  }
}

#endif

template <class W>
void dot_integers(const RoundedRows& x, index_t row, index_t count, index_t groups, const Weight& w,
                  index_t out, index_t outs, float* y, index_t ldy) {
  auto data = static_cast<const uint8_t*>(w.data) + out * groups * W::BYTES;
  auto scale = static_cast<const bf16*>(w.scale) + out * groups;
  // outputs outside, so that a weight is read from memory once for all rows of the block
  for (index_t o = 0; o < outs; o++, data += groups * W::BYTES, scale += groups)
    for (index_t r = 0; r < count; r += TILE_ROWS) {
      float* to = y + r * ldy + o;
      switch (std::min<index_t>(TILE_ROWS, count - r)) {
        case 1: dot_rows<W, 1>(x, row + r, groups, data, scale, to, ldy); break;
        case 2: dot_rows<W, 2>(x, row + r, groups, data, scale, to, ldy); break;
        case 3: dot_rows<W, 3>(x, row + r, groups, data, scale, to, ldy); break;
        default: dot_rows<W, 4>(x, row + r, groups, data, scale, to, ldy);
      }
    }
}

// e4m3 (no infinities) to fp32, times a scale.
float widen_fp8(uint8_t bits, float scale) {
  int exponent = bits >> 3 & 15, mantissa = bits & 7;
  float value = exponent ? std::ldexp(float(mantissa + 8), exponent - 10) : std::ldexp(float(mantissa), -9);
  return (bits & 0x80 ? -value : value) * scale;
}

void widen_fp8(const uint8_t* from, index_t n, float scale, float* to) {
  index_t i = 0;
#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
  // the bits of e4m3, moved to where a half has them, are 2^-8 of the value
  const __m128i sign = _mm_set1_epi16(0x80), rest = _mm_set1_epi16(0x7f);
  const __m256 factor = _mm256_set1_ps(256.0f);
  for (; i + 8 <= n; i += 8) {
    __m128i wide = _mm_cvtepu8_epi16(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from + i)));
    __m128i bits = _mm_or_si128(_mm_slli_epi16(_mm_and_si128(wide, sign), 8),
                                _mm_slli_epi16(_mm_and_si128(wide, rest), 7));
    __m256 value = _mm256_mul_ps(_mm256_cvtph_ps(bits), factor);
    _mm256_storeu_ps(to + i, _mm256_mul_ps(value, _mm256_set1_ps(scale)));
  }
#endif
  for (; i < n; i++) to[i] = widen_fp8(from[i], scale);
}

void dot_fp8(const float* x, index_t inner, index_t count, const Weight& w, index_t out, index_t outs,
             float* y, index_t ldy) {
  auto data = static_cast<const uint8_t*>(w.data);
  auto scale = static_cast<const float*>(w.scale);
  index_t across = (inner + BLOCK - 1) / BLOCK;
  alignas(64) float wide[4 * CHUNK];
  for (index_t o = 0; o < outs; o += 4) {
    index_t many = std::min<index_t>(4, outs - o);
    for (index_t k = 0; k < inner; k += CHUNK) {
      index_t depth = std::min(CHUNK, inner - k);
      for (index_t j = 0; j < many; j++)
        for (index_t i = 0; i < depth; i += BLOCK) {
          index_t at = out + o + j;
          widen_fp8(data + at * inner + k + i, std::min(BLOCK, depth - i),
                    scale[at / BLOCK * across + (k + i) / BLOCK], wide + j * CHUNK + i);
        }
      dot_block(x + k, inner, count, wide, CHUNK, many, depth, y + o, ldy, k > 0);
    }
  }
}

void round_row(const float* x, index_t inner, int8_t* values, float* scale, float* offset) {
  for (index_t g = 0; g < groups_of(inner); g++) {
    index_t n = std::min(GROUP, inner - g * GROUP);
    const float* from = x + g * GROUP;
    int8_t* to = values + g * GROUP;
    float largest = 0, finite = 0;
    for (index_t i = 0; i < n; i++) {
      largest = std::max(largest, std::fabs(from[i]));
      finite += from[i] * 0.0f;
    }
    std::memset(to, 0, GROUP);
    scale[g] = largest / 127.0f + finite;  // NaN for a row that holds one, or an infinity
    offset[g] = 0;
    if (!(largest > 0) || finite != 0) continue;
    float inverse = 127.0f / largest;
    int sum = 0;
    for (index_t i = 0; i < n; i++) {
      to[i] = int8_t(std::nearbyintf(from[i] * inverse));
      sum += to[i];
    }
    offset[g] = scale[g] * float(8 * sum);
  }
}

}  // namespace

void Operand::prepare(const Weight& w, int threads) {
  if ((w.kind != INT8 && w.kind != INT4) || !rounded.values.empty() || !rows) return;
  index_t groups = groups_of(inner);
  rounded.values.resize(rows * groups * GROUP);
  index_t stride = rounded.stride = (groups + 7) / 8 * 8;  // read in eights
  rounded.scale.resize(rows * stride);
  rounded.offset.resize(rows * stride);
  Pieces pieces(rows, 1, threads);
  parallel_for(threads, pieces.count, [&](index_t i, int) {
    for (index_t r = pieces.begin(i); r < pieces.end(i); r++)
      round_row(x + r * inner, inner, &rounded.values[r * groups * GROUP], &rounded.scale[r * stride],
                &rounded.offset[r * stride]);
  });
}

void Operand::times(const Weight& w, index_t row, index_t count, index_t out, index_t outs, float* y,
                    index_t ldy) const {
  const float* from = x + row * inner;
  switch (w.kind) {
    case FP32:
      return dot_block(from, inner, count, static_cast<const float*>(w.data) + out * inner, inner, outs,
                       inner, y, ldy);
    case BF16:
      return dot_block(from, inner, count, static_cast<const bf16*>(w.data) + out * inner, inner, outs,
                       inner, y, ldy);
    case INT8:
      return dot_integers<Int8>(rounded, row, count, groups_of(inner), w, out, outs, y, ldy);
    case INT4:
      return dot_integers<Int4>(rounded, row, count, groups_of(inner), w, out, outs, y, ldy);
    default:
      return dot_fp8(from, inner, count, w, out, outs, y, ldy);
  }
}

Weight expert_of(const Weight& stack, index_t expert, index_t outs, index_t inner) {
  index_t groups = groups_of(inner), first = expert * outs;
  auto data = static_cast<const char*>(stack.data);
  auto scale = static_cast<const char*>(stack.scale);
  switch (stack.kind) {
    case FP32: return {data + first * inner * 4, nullptr, FP32};
    case BF16: return {data + first * inner * 2, nullptr, BF16};
    case INT8: return {data + first * groups * GROUP, scale + first * groups * 2, INT8};
    case INT4: return {data + first * groups * (GROUP / 2), scale + first * groups * 2, INT4};
    default: {
      index_t blocks = ((outs + BLOCK - 1) / BLOCK) * ((inner + BLOCK - 1) / BLOCK);
      return {data + first * inner, scale + expert * blocks * 4, FP8};
    }
  }
}
