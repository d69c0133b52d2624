// One axis of a convolution with three taps, by fewer products than taps times outputs.
//
//     y = output( weights(g) * pixels(d) )                    window pixels d, taps g -> outputs y
//
// A picture has two axes, so that each transform is applied to the columns and then to the rows of a tile. Four and Two
// are Winograd's F(4, 3) and F(2, 3) (Lavin & Gray 2016): window and taps as polynomials, multiplied point by point.
// Four's points are 0, +-5/8, +-3/2 and infinity: half of the rounding error of the usual 0, +-1, +-2, infinity.
// Doubled is the convolution of a picture whose pixels are each repeated: additions alone share its products.

#pragma once

namespace {

typedef float Eight __attribute__((vector_size(32)));  // channels; on a processor without AVX the compiler divides them
#define INLINE inline __attribute__((always_inline))

struct Four {
  static constexpr int window = 6, step = 4, outputs = 4;     // pixels read, pixels to the next tile, pixels written
  static constexpr int pixels_out = 6, weights_out = 6, products = 6;
  static constexpr int pixel[6] = {0, 1, 2, 3, 4, 5}, weight[6] = {0, 1, 2, 3, 4, 5};  // the factors of each product
  static constexpr float a = 0.625f, b = 1.5f, a2 = a * a, b2 = b * b;

  static INLINE void pixels(const Eight* d, Eight* to, int stride) {
    const Eight e = d[4] - b2 * d[2], f = d[3] - b2 * d[1], g = d[4] - a2 * d[2], h = d[3] - a2 * d[1];
    to[0] = a2 * b2 * d[0] + (d[4] - (a2 + b2) * d[2]);
    to[stride] = e + a * f;
    to[2 * stride] = e - a * f;
    to[3 * stride] = g + b * h;
    to[4 * stride] = g - b * h;
    to[5 * stride] = a2 * b2 * d[1] + (d[5] - (a2 + b2) * d[3]);
  }
  static INLINE void weights(const Eight* g, Eight* to, int stride) {
    constexpr float at_a = 1 / (2 * a2 * (a2 - b2)), at_b = 1 / (2 * b2 * (b2 - a2));
    const Eight even_a = at_a * g[0] + at_a * a2 * g[2], even_b = at_b * g[0] + at_b * b2 * g[2];
    to[0] = 1 / (a2 * b2) * g[0];
    to[stride] = even_a + at_a * a * g[1];
    to[2 * stride] = even_a - at_a * a * g[1];
    to[3 * stride] = even_b + at_b * b * g[1];
    to[4 * stride] = even_b - at_b * b * g[1];
    to[5 * stride] = g[2];
  }
  static INLINE void output(const Eight* t, Eight* to, int stride) {
    const Eight p = t[1] + t[2], m = t[1] - t[2], q = t[3] + t[4], n = t[3] - t[4];
    to[0] = t[0] + p + q;
    to[stride] = a * m + b * n;
    to[2 * stride] = a2 * p + b2 * q;
    to[3 * stride] = a * a2 * m + (b * b2 * n + t[5]);
  }
  // The transposes of `output` and `weights`: for the gradient of the weights.
  static INLINE void gradients(const Eight* y, Eight* to, int stride) {
    const Eight even_a = y[0] + a2 * y[2], odd_a = a * (y[1] + a2 * y[3]);
    const Eight even_b = y[0] + b2 * y[2], odd_b = b * (y[1] + b2 * y[3]);
    to[0] = y[0];
    to[stride] = even_a + odd_a;
    to[2 * stride] = even_a - odd_a;
    to[3 * stride] = even_b + odd_b;
    to[4 * stride] = even_b - odd_b;
    to[5 * stride] = y[3];
  }
  static INLINE void taps(const Eight* u, Eight* to, int stride) {
    constexpr float at_a = 1 / (2 * a2 * (a2 - b2)), at_b = 1 / (2 * b2 * (b2 - a2));
    const Eight even_a = at_a * (u[1] + u[2]), even_b = at_b * (u[3] + u[4]);
    to[0] = 1 / (a2 * b2) * u[0] + (even_a + even_b);
    to[stride] = at_a * a * (u[1] - u[2]) + at_b * b * (u[3] - u[4]);
    to[2 * stride] = a2 * even_a + (b2 * even_b + u[5]);
  }
};

struct Two {
  static constexpr int window = 4, step = 2, outputs = 2;
  static constexpr int pixels_out = 4, weights_out = 4, products = 4;
  static constexpr int pixel[4] = {0, 1, 2, 3}, weight[4] = {0, 1, 2, 3};

  static INLINE void pixels(const Eight* d, Eight* to, int stride) {
    to[0] = d[0] - d[2];
    to[stride] = d[1] + d[2];
    to[2 * stride] = d[2] - d[1];
    to[3 * stride] = d[1] - d[3];
  }
  static INLINE void weights(const Eight* g, Eight* to, int stride) {
    const Eight even = 0.5f * (g[0] + g[2]), odd = 0.5f * g[1];
    to[0] = g[0];
    to[stride] = even + odd;
    to[2 * stride] = even - odd;
    to[3 * stride] = g[2];
  }
  static INLINE void output(const Eight* t, Eight* to, int stride) {
    to[0] = t[0] + t[1] + t[2];
    to[stride] = t[1] - t[2] - t[3];
  }
};

// Neighbours a b c d of the small picture give the four outputs around b and c:
//     w0 a + (w1 + w2) b,   (w0 + w1) b + w2 c,   w0 b + (w1 + w2) c,   (w0 + w1) c + w2 d
struct Doubled {
  static constexpr int window = 4, step = 2, outputs = 4;
  static constexpr int pixels_out = 5, weights_out = 5, products = 6;
  static constexpr int pixel[6] = {0, 1, 2, 2, 3, 4}, weight[6] = {0, 1, 2, 3, 1, 4};

  static INLINE void pixels(const Eight* d, Eight* to, int stride) {
    to[0] = d[0] - d[1];
    to[stride] = d[1];
    to[2 * stride] = d[2] - d[1];
    to[3 * stride] = d[2];
    to[4 * stride] = d[3] - d[2];
  }
  static INLINE void weights(const Eight* g, Eight* to, int stride) {
    const Eight last = g[1] + g[2];
    to[0] = g[0];
    to[stride] = g[0] + last;
    to[2 * stride] = last;
    to[3 * stride] = g[0] + g[1];
    to[4 * stride] = g[2];
  }
  static INLINE void output(const Eight* t, Eight* to, int stride) {
    to[0] = t[0] + t[1];
    to[stride] = t[4] - t[3];
    to[2 * stride] = t[1] + t[2];
    to[3 * stride] = t[4] + t[5];
  }
};

}  // namespace
