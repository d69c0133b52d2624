// The four loops over the pixels of a part.

#pragma once

#include <cstdint>

#include "parts.h"

namespace {

// sums of x - pivot and of its square, where the pivot is the channel's first pixel
template <class T>
void moments(const Sizes& s, const T* x, int64_t j, float* sum, float* square) {
  if (!s.last) sum[j] = square[j] = 0;
  s.strips(j, [&](int64_t c, int64_t first, int64_t stride, int64_t count, auto lanes) __attribute__((always_inline)) {
    Vec pivot = s.last ? load(x + c, lanes) : Vec{} + load(x + c * s.pixels, 1)[0];
    if (!s.last && lanes < LANES)  // unused lanes must add zero
      for (int i = lanes; i < LANES; ++i) pivot[i] = 0;
    Vec a0 = {}, a1 = {}, b0 = {}, b1 = {};  // two chains each, for the adder's latency
    const T* from = x + first;
    int64_t i = 0;
    for (; i + 2 <= count; i += 2, from += 2 * stride) {
      const Vec d = load(from, lanes) - pivot, e = load(from + stride, lanes) - pivot;
      a0 += d;
      b0 += d * d;
      a1 += e;
      b1 += e * e;
    }
    if (i < count) {
      const Vec d = load(from, lanes) - pivot;
      a0 += d;
      b0 += d * d;
    }
    s.give(sum, c, a0 + a1, lanes);
    s.give(square, c, b0 + b1, lanes);
  });
}

// y = silu(x slope + level)
template <bool silu, class T>
void transform(const Sizes& s, const T* x, T* y, int64_t j, const float* slope, const float* level) {
  s.strips(j, [&](int64_t c, int64_t first, int64_t stride, int64_t count, auto lanes) __attribute__((always_inline)) {
    const Vec a = s.take(slope, c, lanes), b = s.take(level, c, lanes);
    const T* from = x + first;
    T* to = y + first;
    for (int64_t i = 0; i < count; ++i, from += stride, to += stride) {
      const Vec z = load(from, lanes) * a + b;
      store(to, silu ? z * sigmoid(z) : z, lanes);
    }
  });
}

// sums of dz, dz (x - centre) and x - centre
template <bool silu, class T>
void slopes(const Sizes& s, const T* x, const T* dy, int64_t j, const float* slope, const float* level,
            const float* centre, float* dz, float* dzx, float* dx) {
  if (!s.last) dz[j] = dzx[j] = dx[j] = 0;
  s.strips(j, [&](int64_t c, int64_t first, int64_t stride, int64_t count, auto lanes) __attribute__((always_inline)) {
    const Vec a = s.take(slope, c, lanes), b = s.take(level, c, lanes);
    Vec m = s.take(centre, c, lanes);
    if (!s.last && lanes < LANES)
      for (int i = lanes; i < LANES; ++i) m[i] = 0;
    Vec sum = {}, sumx = {}, off = {};
    const T *from = x + first, *grad = dy + first;
    for (int64_t i = 0; i < count; ++i, from += stride, grad += stride) {
      const Vec value = load(from, lanes), d = through<silu>(load(grad, lanes), value * a + b);
      sum += d;
      sumx += d * (value - m);
      off += value - m;
    }
    s.give(dz, c, sum, lanes);
    s.give(dzx, c, sumx, lanes);
    s.give(dx, c, off, lanes);
  });
}

// dx = dz slope + (x - centre) tilt + drift
template <bool silu, class T>
void pull(const Sizes& s, const T* x, const T* dy, T* out, int64_t j, const float* slope, const float* level,
          const float* centre, const float* tilt, const float* drift) {
  s.strips(j, [&](int64_t c, int64_t first, int64_t stride, int64_t count, auto lanes) __attribute__((always_inline)) {
    const Vec a = s.take(slope, c, lanes), b = s.take(level, c, lanes), t = s.take(tilt, c, lanes);
    const Vec rest = s.take(drift, c, lanes) - s.take(centre, c, lanes) * t;
    const T *from = x + first, *grad = dy + first;
    T* to = out + first;
    for (int64_t i = 0; i < count; ++i, from += stride, grad += stride, to += stride) {
      const Vec value = load(from, lanes), d = through<silu>(load(grad, lanes), value * a + b);
      store(to, d * a + (value * t + rest), lanes);
    }
  });
}

}  // namespace
