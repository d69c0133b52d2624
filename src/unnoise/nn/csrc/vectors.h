// Vectors of floats with gcc's and clang's vector extension, for every processor, and silu's exponential.

#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

namespace {

using Brain = uint16_t;  // the bits of a bfloat16

#if defined(__AVX512F__)
constexpr int LANES = 16;  // one register: wider vectors would go through memory
#elif defined(__AVX__)
constexpr int LANES = 8;
#else
constexpr int LANES = 4;
#endif
typedef float Vec __attribute__((vector_size(4 * LANES)));
typedef uint32_t Bits __attribute__((vector_size(4 * LANES)));
typedef Brain Half __attribute__((vector_size(2 * LANES)));
using All = std::integral_constant<int, LANES>;  // the number of lanes in use, if it is all of them; else an int
#define INLINE inline __attribute__((always_inline))

template <class Lanes>
INLINE Vec load(const float* from, Lanes lanes) {
  Vec v = {};
  std::memcpy(&v, from, 4 * lanes);
  return v;
}
template <class Lanes>
INLINE Vec load(const Brain* from, Lanes lanes) {
  Half h = {};
  std::memcpy(&h, from, 2 * lanes);
  return (Vec)(__builtin_convertvector(h, Bits) << 16);
}
template <class Lanes>
INLINE void store(float* to, Vec v, Lanes lanes) {
  std::memcpy(to, &v, 4 * lanes);
}
template <class Lanes>
INLINE void store(Brain* to, Vec v, Lanes lanes) {
#ifdef __AVX512BF16__
  const __m256bh h = _mm512_cvtneps_pbh((__m512)v);
#else
  Bits bits = (Bits)v;
  bits = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16;  // to nearest, ties to even
  const Half h = __builtin_convertvector(v == v ? bits : (Bits{} + 0x7FC0), Half);
#endif
  std::memcpy(to, &h, 2 * lanes);
}
INLINE float total(Vec v) {
  float sum = 0;
  for (int i = 0; i < LANES; ++i) sum += v[i];
  return sum;
}

// 2^n e^r with |r| <= ln(2) / 2, and the Taylor sum of e^r to r^6: 2e-7 relative, for |x| <= 87; beyond, e^(+-87).
INLINE Vec exponential(Vec x) {
  const Vec most = Vec{} + 87.0f;
  x = x < -most ? -most : x;
  x = x > most ? most : x;
  Vec n = x * 1.44269504f + 12582912.0f;  // 1.5 * 2^23: the last bits of the sum are the nearest integer,
  const Bits power = (Bits)n << 23;       // and all that remains when they are shifted to the exponent
  n -= 12582912.0f;
  const Vec r = x - n * 0.693359375f + n * 2.12194440e-4f;  // ln 2 in two pieces, the first of 9 bits
  Vec sum = r * (1.0f / 720) + 1.0f / 120;
  sum = sum * r + 1.0f / 24;
  sum = sum * r + 1.0f / 6;
  sum = sum * r + 0.5f;
  sum = sum * r + 1.0f;
  sum = sum * r + 1.0f;
  return (Vec)((Bits)sum + power);  // times 2^n
}
// For a NaN the result is arbitrary: it is always multiplied by z or added to it.
INLINE Vec sigmoid(Vec z) { return 1.0f / (1.0f + exponential(-z)); }

// dL/dz from dL/dy at z
template <bool silu>
INLINE Vec through(Vec dy, Vec z) {
  if (!silu) return dy;
  const Vec g = sigmoid(z);
  return dy * (g + z * g * (1.0f - g));
}

}  // namespace
