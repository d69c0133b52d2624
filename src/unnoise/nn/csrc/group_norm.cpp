// Fused add + GroupNorm + scale/shift + SiLU and its backward, for float32 and bfloat16, channels_last and contiguous.
//
//     u = x + add,   h = (u - mean_g) rstd_g,   z = h gamma + beta,   y = silu(z) or z
//     gamma = weight (1 + scale),   beta = bias (1 + scale) + shift                       per sample and channel
//
// so that per sample and channel z = x slope + level. The parts of a sample depend on its own size alone: its sums have
// one order, whatever the batch and the number of threads. Sums are computed in float32 within a part and in float64
// over parts, relative to the channel's first pixel, so that a mean far from zero loses no digits.

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <optional>
#include <tuple>
#include <type_traits>
#include <vector>

#include "loops.h"

namespace {

using at::Tensor;
using Maybe = std::optional<Tensor>;

// The per-channel numbers around the norm, as float32: (C) and (B, C); absent ones count as zero.
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
    TORCH_CHECK(t.numel() == size, "group_norm: ", size, " numbers expected for this x, got ", t.numel());
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
              "group_norm: x must be (B, C, H, W), not empty, with C divisible by the number of groups");
  const bool last = x.suggest_memory_format() == at::MemoryFormat::ChannelsLast;
  return {x.size(0), x.size(1), x.size(2) * x.size(3), groups, last};
}

Tensor dense(const Tensor& x, const Sizes& s) {
  return x.contiguous(s.last ? at::MemoryFormat::ChannelsLast : at::MemoryFormat::Contiguous);
}

// Calls f(element, silu) with both as compile-time constants.
template <class F>
void choose(at::ScalarType type, bool silu, const F& f) {
  TORCH_CHECK(type == at::kFloat || type == at::kBFloat16, "group_norm: x must be float32 or bfloat16");
  const auto typed = [&](auto element) { silu ? f(element, std::true_type{}) : f(element, std::false_type{}); };
  type == at::kFloat ? typed(float{}) : typed(Brain{});
}

// The sum over parts of a sample's partial sums, rows of (kinds, C) floats: (kinds, C).
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
      std::vector<double> mean = gather(s, row(n, 0), 2);  // of u per channel, followed by the variance per channel
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
        double centre = 0, spread = 0;  // the group's variance: within its channels and between them
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

TORCH_LIBRARY_FRAGMENT(unnoise, library) {
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
