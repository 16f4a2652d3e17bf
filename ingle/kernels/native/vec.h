// One vector type `vf` of VEC floats for every target, with the few operations the kernels need.
//
// Everything is inline and internal: the same sources are compiled once per target, and only the
// width and the fused multiply-add differ.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__AVX512F__) || (defined(__AVX2__) && defined(__FMA__))
#include <immintrin.h>
#elif defined(__SSE2__)
#include <emmintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

typedef int64_t index_t;

constexpr index_t LINE = 16;  // floats of a cache line

struct bf16 {
  uint16_t bits;
};

namespace {

#if defined(__AVX512F__)
constexpr int VEC = 16;
#elif defined(__AVX2__) && defined(__FMA__)
constexpr int VEC = 8;
#else
constexpr int VEC = 4;
#endif

// 32 vector registers (AVX-512, AArch64) hold larger blocks than 16 do.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr bool MANY_REGISTERS = true;
#else
constexpr bool MANY_REGISTERS = false;
#endif

typedef float vf __attribute__((vector_size(4 * VEC)));
typedef int32_t vi __attribute__((vector_size(4 * VEC)));
typedef uint32_t vu __attribute__((vector_size(4 * VEC)));
typedef uint16_t vh __attribute__((vector_size(2 * VEC)));
typedef float v4 __attribute__((vector_size(16)));

// a - 0 folds to a broadcast; 0 + a does not, since it turns -0 into 0.
inline vf splat(float a) { return a - vf{}; }

inline vf load(const float* p) {
  vf v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

// A bf16 is the upper half of a float: widening is exact.
inline vf load(const bf16* p) {
  vh half;
  std::memcpy(&half, p, sizeof half);
  return (vf)(__builtin_convertvector(half, vu) << 16);
}

// The first n values at p, zeros after them.
template <class T>
inline vf load_part(const T* p, int n) {
  T padded[VEC] = {};
  std::memcpy(padded, p, n * sizeof(T));
  return load(padded);
}

inline void store(float* p, vf v) { std::memcpy(p, &v, sizeof v); }

// n values will be read soon, or written.
inline void ask(const float* p, index_t n) {
  for (index_t i = 0; i < n; i += LINE) __builtin_prefetch(p + i);
}
inline void ask_to_write(const float* p, index_t n) {
  for (index_t i = 0; i < n; i += LINE) __builtin_prefetch(p + i, 1);
}

inline void store_part(float* p, vf v, int n) { std::memcpy(p, &v, n * sizeof(float)); }

// Round to nearest even, as torch does.
inline bf16 narrow(float a) {
  uint32_t bits;
  std::memcpy(&bits, &a, 4);
  if (a != a) return {0x7fc0};
  return {uint16_t((bits + 0x7fff + ((bits >> 16) & 1)) >> 16)};
}

// a * b + c, rounded once where the target can, always in the same way on one target.
inline vf fma(vf a, vf b, vf c) {
#if defined(__AVX512F__)
  return (vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__AVX2__) && defined(__FMA__)
  return (vf)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif defined(__ARM_NEON)
  return (vf)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
  return a * b + c;
#endif
}

inline vf select(vi mask, vf yes, vf no) { return (vf)(((vi)yes & mask) | ((vi)no & ~mask)); }
inline vf min(vf a, vf b) { return select(a < b, a, b); }
inline vf max(vf a, vf b) { return select(a > b, a, b); }

#if defined(__AVX512F__)
inline v4 fold(vf a) {
  __m512 whole = (__m512)a;
  __m256 half = _mm256_add_ps(_mm512_castps512_ps256(whole), _mm512_extractf32x8_ps(whole, 1));
  return (v4)_mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
}
#elif defined(__AVX2__) && defined(__FMA__)
inline v4 fold(vf a) {
  __m256 whole = (__m256)a;
  return (v4)_mm_add_ps(_mm256_castps256_ps128(whole), _mm256_extractf128_ps(whole, 1));
}
#else
inline v4 fold(vf a) { return a; }
#endif

// The sums over the lanes of four vectors: one tree, the same for each of the four.
inline v4 sum4(vf a, vf b, vf c, vf d) {
  v4 p = fold(a), q = fold(b), r = fold(c), s = fold(d);
#if defined(__SSE2__)
  __m128 pq = _mm_add_ps(_mm_unpacklo_ps((__m128)p, (__m128)q), _mm_unpackhi_ps((__m128)p, (__m128)q));
  __m128 rs = _mm_add_ps(_mm_unpacklo_ps((__m128)r, (__m128)s), _mm_unpackhi_ps((__m128)r, (__m128)s));
  return (v4)_mm_add_ps(_mm_movelh_ps(pq, rs), _mm_movehl_ps(rs, pq));
#else
  return v4{(p[0] + p[2]) + (p[1] + p[3]), (q[0] + q[2]) + (q[1] + q[3]),
            (r[0] + r[2]) + (r[1] + r[3]), (s[0] + s[2]) + (s[1] + s[3])};
#endif
}

inline float sum(vf a) { return sum4(a, a, a, a)[0]; }

inline float largest(vf a) {
  float best = a[0];
  for (int i = 1; i < VEC; i++) best = a[i] > best ? a[i] : best;
  return best;
}

// to[c][r] = from[r][c] of a square of four.
inline void transpose4(const float* from, index_t ldf, float* to, index_t ldt) {
#if defined(__SSE2__)
  __m128 a = _mm_loadu_ps(from), b = _mm_loadu_ps(from + ldf);
  __m128 c = _mm_loadu_ps(from + 2 * ldf), d = _mm_loadu_ps(from + 3 * ldf);
  _MM_TRANSPOSE4_PS(a, b, c, d);
  _mm_storeu_ps(to, a), _mm_storeu_ps(to + ldt, b);
  _mm_storeu_ps(to + 2 * ldt, c), _mm_storeu_ps(to + 3 * ldt, d);
#else
  for (int r = 0; r < 4; r++)
    for (int c = 0; c < 4; c++) to[c * ldt + r] = from[r * ldf + c];
#endif
}

// e^x = mantissa * 2^power: Cody-Waite reduction x = n ln2 + r, |r| <= ln2 / 2, then the polynomial of
// Cephes' expf.
struct Exponential {
  vf mantissa;
  vi power;
};

inline Exponential reduced_exp(vf x) {
  const vf shifter = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
  vf shifted = fma(x, splat(1.44269504f), shifter);
  vf n = shifted - shifter;
  vf r = fma(n, splat(-0.693359375f), x);
  r = fma(n, splat(2.12194440e-4f), r);
  vf p = splat(1.9875691500e-4f);
  p = fma(p, r, splat(1.3981999507e-3f));
  p = fma(p, r, splat(8.3334519073e-3f));
  p = fma(p, r, splat(4.1665795894e-2f));
  p = fma(p, r, splat(1.6666665459e-1f));
  p = fma(p, r, splat(5.0000001201e-1f));
  return {fma(p, r * r, r) + 1.0f, (vi)shifted - (vi)shifter};
}

// e^x within 2 units in the last place, from 0 over denormals to infinity; NaN stays NaN.
inline vf exp(vf x) {
  x = select(x > splat(89.0f), splat(89.0f), x);
  x = select(x < splat(-104.0f), splat(-104.0f), x);
  Exponential e = reduced_exp(x);
  // 2^n in two factors, since n reaches beyond the exponents a single float can hold
  vi half = e.power >> 1;
  vf first = (vf)((half + 127) << 23), second = (vf)((e.power - half + 127) << 23);
  return e.mantissa * first * second;
}

// The same for weights of a softmax, where x is at most 0 but for rounding: below e^-86 they are 0.
inline vf exp_below(vf x) {
  Exponential e = reduced_exp(x);
  return select(x < splat(-86.0f), vf{}, e.mantissa * (vf)((e.power + 127) << 23));
}

inline vf sigmoid(vf x) { return 1.0f / (1.0f + exp(-x)); }
inline vf silu(vf x) { return x / (1.0f + exp(-x)); }

}  // namespace
