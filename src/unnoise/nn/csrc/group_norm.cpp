// Fused add + GroupNorm + scale/shift + SiLU and its backward, for float32 and bfloat16, channels_last and contiguous.
//
//     u = x + add,   h = (u - mean_g) rstd_g,   z = h gamma + beta,   y = silu(z) or z
//     gamma = weight (1 + scale),   beta = bias (1 + scale) + shift                       per sample and channel
//
// so that per sample and channel z = x slope + level. A sample is cut into parts by its own size alone: its sums have
// one order, whatever the batch and the number of threads. Sums run in float32 inside a part and in float64 over parts,
// about the channel's first pixel, so that a mean far from zero costs no digits.

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <optional>
#include <tuple>
#include <type_traits>
#include <vector>

#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

namespace {

using at::Tensor;
using Maybe = std::optional<Tensor>;
using Brain = uint16_t;  // the bits of a bfloat16

// ---- several numbers at once: vectors as gcc and clang know them on every machine ----

#if defined(__AVX512F__)
constexpr int LANES = 16;  // one register: wider vectors go through memory
#elif defined(__AVX__)
constexpr int LANES = 8;
#else
constexpr int LANES = 4;
#endif
typedef float Vec __attribute__((vector_size(4 * LANES)));
typedef uint32_t Bits __attribute__((vector_size(4 * LANES)));
typedef Brain Half __attribute__((vector_size(2 * LANES)));
using All = std::integral_constant<int, LANES>;  // how many lanes hold numbers, where all do; else an int
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
  Vec n = x * 1.44269504f + 12582912.0f;  // 1.5 * 2^23: the last bits of the sum are the nearest whole number,
  const Bits power = (Bits)n << 23;       // and all that is left when they are moved to the exponent's place
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
// Of what is no number this may be any: z stands beside it wherever it is used.
INLINE Vec sigmoid(Vec z) { return 1.0f / (1.0f + exponential(-z)); }

// dL/dz from dL/dy at z
template <bool silu>
INLINE Vec through(Vec dy, Vec z) {
  if (!silu) return dy;
  const Vec g = sigmoid(z);
  return dy * (g + z * g * (1.0f - g));
}

// ---- how a tensor is walked ----

constexpr int64_t PART = 16384;  // elements in a part: two operands of it stay in a first- or second-level cache

// The sizes of one call. `last`: a pixel's channels lie side by side; else a channel's pixels do.
struct Sizes {
  int64_t samples, channels, pixels, groups;
  bool last;

  int64_t width() const { return channels / groups; }
  int64_t step() const { return std::max<int64_t>(1, PART / channels); }              // pixels in a part
  int64_t parts() const { return last ? (pixels + step() - 1) / step() : channels; }  // tasks a sample
  int64_t sums() const { return last ? parts() : 1; }                                 // rows of partial sums a sample
  int64_t offset(int64_t n) const { return n * channels * pixels; }

  // Calls visit(channel, first element, stride, count, lanes) for every strip of part j: `count` vectors of `lanes`
  // numbers, `stride` elements apart, that belong to the channels from `channel` on (last), or all to `channel`.
  template <class Visit>
  INLINE void strips(int64_t j, const Visit& visit) const {
    if (last) {
      const int64_t from = j * step(), count = std::min(pixels - from, step());
      int64_t c = 0;
      for (; c + LANES <= channels; c += LANES) visit(c, from * channels + c, channels, count, All{});
      if (c < channels) visit(c, from * channels + c, channels, count, static_cast<int>(channels - c));
    } else {
      const int64_t whole = pixels / LANES, rest = pixels % LANES;
      if (whole) visit(j, j * pixels, int64_t{LANES}, whole, All{});
      if (rest) visit(j, j * pixels + whole * LANES, int64_t{LANES}, int64_t{1}, static_cast<int>(rest));
    }
  }
  // A row of per-channel numbers, as a strip sees it, and back: sums over the strip, added to the row.
  template <class Lanes>
  INLINE Vec take(const float* row, int64_t c, Lanes lanes) const {
    return last ? load(row + c, lanes) : Vec{} + row[c];
  }
  template <class Lanes>
  INLINE void give(float* row, int64_t c, Vec sum, Lanes lanes) const {
    if (last) store(row + c, sum, lanes);
    else row[c] += total(sum);
  }
};

// One sample's `first` on every part, `fold`, `second` on every part: samples side by side where there are enough of
// them for the threads, parts side by side where not.
template <class First, class Fold, class Second>
void sweep(const Sizes& s, const First& first, const Fold& fold, const Second& second) {
  const int64_t parts = s.parts(), size = s.channels * s.pixels;
  if (s.samples >= at::get_num_threads() || s.samples * size <= 2 * PART) {
    at::parallel_for(0, s.samples, std::max<int64_t>(1, 2 * PART / size), [&](int64_t from, int64_t to) {
      for (int64_t n = from; n < to; ++n) {
        for (int64_t j = 0; j < parts; ++j) first(n, j);
        fold(n);
        for (int64_t j = 0; j < parts; ++j) second(n, j);
      }
    });
    return;
  }
  const auto each = [&](const auto& task) {
    at::parallel_for(0, s.samples * parts, std::max<int64_t>(1, PART * parts / size), [&](int64_t from, int64_t to) {
      for (int64_t i = from; i < to; ++i) task(i / parts, i % parts);
    });
  };
  each(first);
  for (int64_t n = 0; n < s.samples; ++n) fold(n);
  each(second);
}

// ---- the four loops over pixels ----

// sums of x - pivot and of its square, the pivot being the channel's first pixel
template <class T>
void moments(const Sizes& s, const T* x, int64_t j, float* sum, float* square) {
  if (!s.last) sum[j] = square[j] = 0;
  s.strips(j, [&](int64_t c, int64_t first, int64_t stride, int64_t count, auto lanes) __attribute__((always_inline)) {
    Vec pivot = s.last ? load(x + c, lanes) : Vec{} + load(x + c * s.pixels, 1)[0];
    if (!s.last && lanes < LANES)  // empty lanes must add nothing
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

// ---- the operations ----

// The per-channel numbers around the norm, as float32: (C) and (B, C), zero where left out.
struct Affine {
  Tensor weight, bias, add, scale, shift;
  int64_t channels;

  Affine(const Tensor& w, const Tensor& b, const Maybe& a, const Maybe& m, const Maybe& t, const Sizes& s)
      : channels(s.channels) {
    weight = flat(w, channels), bias = flat(b, channels);
    if (a) add = flat(*a, s.samples * channels);
    if (m) scale = flat(*m, s.samples * channels);
    if (t) shift = flat(*t, s.samples * channels);
  }
  static Tensor flat(const Tensor& t, int64_t size) {
    TORCH_CHECK(t.numel() == size, "group_norm: ", size, " numbers expected beside x, got ", t.numel());
    return t.to(at::kFloat).contiguous();
  }
  static const float* at(const Tensor& t) { return t.defined() ? t.const_data_ptr<float>() : nullptr; }

  struct Row {
    const float *weight, *bias, *add_, *scale, *shift_;
    double more(int64_t c) const { return scale ? 1.0 + scale[c] : 1.0; }
    double gamma(int64_t c) const { return weight[c] * more(c); }
    double beta(int64_t c) const { return bias[c] * more(c) + (shift_ ? shift_[c] : 0.0f); }
    double add(int64_t c) const { return add_ ? add_[c] : 0.0f; }
  };
  Row row(int64_t n) const {
    const auto of = [&](const Tensor& t) { return t.defined() ? at(t) + n * channels : nullptr; };
    return {at(weight), at(bias), of(add), of(scale), of(shift)};
  }
};

Sizes sizes(const Tensor& x, int64_t groups) {
  TORCH_CHECK(x.dim() == 4 && x.numel() > 0 && groups > 0 && x.size(1) % groups == 0,
              "group_norm: x is (B, C, H, W), not empty, with C in equal groups");
  const bool last = x.suggest_memory_format() == at::MemoryFormat::ChannelsLast;
  return {x.size(0), x.size(1), x.size(2) * x.size(3), groups, last};
}

Tensor dense(const Tensor& x, const Sizes& s) {
  return x.contiguous(s.last ? at::MemoryFormat::ChannelsLast : at::MemoryFormat::Contiguous);
}

// Runs f(element, silu) with both known to the compiler.
template <class F>
void choose(at::ScalarType type, bool silu, const F& f) {
  TORCH_CHECK(type == at::kFloat || type == at::kBFloat16, "group_norm: float32 or bfloat16");
  const auto typed = [&](auto element) { silu ? f(element, std::true_type{}) : f(element, std::false_type{}); };
  type == at::kFloat ? typed(float{}) : typed(Brain{});
}

// Partial sums of a sample, rows of (kinds, C) floats, added up over its parts: kinds vectors of C.
std::vector<double> gather(const Sizes& s, const float* rows, int kinds) {
  const int64_t size = kinds * s.channels;
  std::vector<double> sum(rows, rows + size);
  for (int64_t k = 1; k < s.sums(); ++k)
    for (int64_t i = 0; i < size; ++i) sum[i] += rows[k * size + i];
  return sum;
}

std::tuple<Tensor, Tensor> forward(const Tensor& input, const Tensor& weight, const Tensor& bias, const Maybe& add,
                                   const Maybe& scale, const Maybe& shift, int64_t groups, double eps, bool silu) {
  const Sizes s = sizes(input, groups);
  const Tensor x = dense(input, s);
  const Affine affine(weight, bias, add, scale, shift, s);
  const auto single = x.options().dtype(at::kFloat);
  const int64_t C = s.channels, W = s.width();
  Tensor y = at::empty_like(x), stats = at::empty({s.samples, 2, groups}, single);
  Tensor sums = at::empty({s.samples, s.sums(), 2, C}, single), lines = at::empty({s.samples, 2, C}, single);
  float *sum = sums.mutable_data_ptr<float>(), *line = lines.mutable_data_ptr<float>();

  choose(x.scalar_type(), silu, [&](auto element, auto active) {
    using T = decltype(element);
    const T* from = static_cast<const T*>(x.const_data_ptr());
    T* to = static_cast<T*>(y.mutable_data_ptr());
    const auto row = [&](int64_t n, int64_t j) { return sum + (n * s.sums() + (s.last ? j : 0)) * 2 * C; };
    const auto first = [&](int64_t n, int64_t j) { moments(s, from + s.offset(n), j, row(n, j), row(n, j) + C); };
    const auto fold = [&](int64_t n) {
      std::vector<double> mean = gather(s, row(n, 0), 2);  // of u, a channel each; then the variance, a channel each
      double* variance = mean.data() + C;
      const T* sample = from + s.offset(n);
      const Affine::Row a = affine.row(n);
      for (int64_t c = 0; c < C; ++c) {
        const double off = mean[c] / s.pixels;
        variance[c] = variance[c] / s.pixels - off * off;
        mean[c] = off + load(sample + (s.last ? c : c * s.pixels), 1)[0] + a.add(c);
      }
      float *stat = stats.mutable_data_ptr<float>() + n * 2 * groups, *slope = line + n * 2 * C, *level = slope + C;
      for (int64_t g = 0; g < groups; ++g) {
        double centre = 0, spread = 0;  // the group's variance: inside its channels and between them
        for (int64_t c = g * W; c < (g + 1) * W; ++c) centre += mean[c] / W;
        for (int64_t c = g * W; c < (g + 1) * W; ++c)
          spread += (variance[c] + (mean[c] - centre) * (mean[c] - centre)) / W;
        const double rstd = 1 / std::sqrt(std::max(spread, 0.0) + eps);
        stat[g] = static_cast<float>(centre);
        stat[groups + g] = static_cast<float>(rstd);
        for (int64_t c = g * W; c < (g + 1) * W; ++c) {
          slope[c] = static_cast<float>(rstd * a.gamma(c));
          level[c] = static_cast<float>((a.add(c) - centre) * rstd * a.gamma(c) + a.beta(c));
        }
      }
    };
    const auto second = [&](int64_t n, int64_t j) {
      const float* slope = line + n * 2 * C;
      transform<decltype(active)::value>(s, from + s.offset(n), to + s.offset(n), j, slope, slope + C);
    };
    sweep(s, first, fold, second);
  });
  return {y, stats};
}

// Gradients of x, weight, bias, add, scale and shift, the last five in float32, (C), (C) and (B, C).
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> backward(
    const Tensor& grad, const Tensor& input, const Tensor& stats, const Tensor& weight, const Tensor& bias,
    const Maybe& add, const Maybe& scale, const Maybe& shift, int64_t groups, bool silu) {
  const Sizes s = sizes(input, groups);
  const Tensor x = dense(input, s), dy = dense(grad.to(input.scalar_type()), s);
  const Affine affine(weight, bias, add, scale, shift, s);
  const auto single = x.options().dtype(at::kFloat);
  const int64_t C = s.channels, W = s.width(), N = s.samples;
  Tensor dx = at::empty_like(x), dweight = at::empty({C}, single), dbias = at::empty({C}, single);
  Tensor dadd = at::empty({N, C}, single), dscale = at::empty({N, C}, single), dshift = at::empty({N, C}, single);
  Tensor dgamma = at::empty({N, C}, single);
  Tensor sums = at::empty({N, s.sums(), 3, C}, single), lines = at::empty({N, 5, C}, single);
  float *sum = sums.mutable_data_ptr<float>(), *first_line = lines.mutable_data_ptr<float>();
  const auto line = [&](int64_t n, int k) { return first_line + (n * 5 + k) * C; };
  const auto of = [&](Tensor& t, int64_t n) { return t.mutable_data_ptr<float>() + n * C; };

  for (int64_t n = 0; n < N; ++n) {
    const Affine::Row a = affine.row(n);
    const float* stat = stats.const_data_ptr<float>() + n * 2 * groups;
    float *slope = line(n, 0), *level = line(n, 1), *centre = line(n, 2);
    for (int64_t c = 0; c < C; ++c) {
      const double own = stat[c / W] - a.add(c), steep = stat[groups + c / W] * a.gamma(c);
      slope[c] = static_cast<float>(steep);
      level[c] = static_cast<float>(a.beta(c) - own * steep);
      centre[c] = static_cast<float>(own);
    }
  }

  choose(x.scalar_type(), silu, [&](auto element, auto active) {
    using T = decltype(element);
    constexpr bool act = decltype(active)::value;
    const T *from = static_cast<const T*>(x.const_data_ptr()), *grads = static_cast<const T*>(dy.const_data_ptr());
    T* to = static_cast<T*>(dx.mutable_data_ptr());
    const auto row = [&](int64_t n, int64_t j) { return sum + (n * s.sums() + (s.last ? j : 0)) * 3 * C; };
    const auto first = [&](int64_t n, int64_t j) {
      float* r = row(n, j);
      slopes<act>(s, from + s.offset(n), grads + s.offset(n), j, line(n, 0), line(n, 1), line(n, 2), r, r + C,
                  r + 2 * C);
    };
    const auto fold = [&](int64_t n) {
      const std::vector<double> all = gather(s, row(n, 0), 3);
      const double *dz = all.data(), *dzx = dz + C, *off = dz + 2 * C;
      const Affine::Row a = affine.row(n);
      float *da = of(dadd, n), *dg = of(dgamma, n), *db = of(dshift, n);
      for (int64_t g = 0; g < groups; ++g) {
        const double rstd = stats.const_data_ptr<float>()[(n * 2 + 1) * groups + g];
        double plain = 0, tilted = 0;  // means over the group of gamma dz and of gamma dz h
        for (int64_t c = g * W; c < (g + 1) * W; ++c) {
          plain += a.gamma(c) * dz[c] / (W * s.pixels);
          tilted += a.gamma(c) * dzx[c] * rstd / (W * s.pixels);
        }
        for (int64_t c = g * W; c < (g + 1) * W; ++c) {
          const double tilt = -rstd * rstd * tilted, drift = -rstd * plain;
          line(n, 3)[c] = static_cast<float>(tilt);
          line(n, 4)[c] = static_cast<float>(drift);
          da[c] = static_cast<float>(rstd * a.gamma(c) * dz[c] + tilt * off[c] + drift * s.pixels);
          dg[c] = static_cast<float>(dzx[c] * rstd);
          db[c] = static_cast<float>(dz[c]);
        }
      }
    };
    const auto second = [&](int64_t n, int64_t j) {
      pull<act>(s, from + s.offset(n), grads + s.offset(n), to + s.offset(n), j, line(n, 0), line(n, 1), line(n, 2),
                line(n, 3), line(n, 4));
    };
    sweep(s, first, fold, second);
  });

  std::vector<double> w(C), b(C);
  for (int64_t n = 0; n < N; ++n) {
    const Affine::Row a = affine.row(n);
    const float *dg = of(dgamma, n), *db = of(dshift, n);
    float* dm = of(dscale, n);
    for (int64_t c = 0; c < C; ++c) {
      w[c] += dg[c] * a.more(c);
      b[c] += db[c] * a.more(c);
      dm[c] = dg[c] * a.weight[c] + db[c] * a.bias[c];
    }
  }
  std::copy(w.begin(), w.end(), of(dweight, 0));
  std::copy(b.begin(), b.end(), of(dbias, 0));
  return {dx, dweight, dbias, dadd, dscale, dshift};
}

}  // namespace

TORCH_LIBRARY(unnoise, library) {
  library.def(
      "group_norm(Tensor x, Tensor weight, Tensor bias, Tensor? add, Tensor? scale, Tensor? shift, int groups, "
      "float eps, bool silu) -> (Tensor, Tensor)");
  library.def(
      "group_norm_backward(Tensor grad, Tensor x, Tensor stats, Tensor weight, Tensor bias, Tensor? add, "
      "Tensor? scale, Tensor? shift, int groups, bool silu) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)");
}

TORCH_LIBRARY_IMPL(unnoise, CPU, library) {
  library.impl("group_norm", &forward);
  library.impl("group_norm_backward", &backward);
}
