// 3x3 convolution with stride 1 and a border of one zero, and the step up, for float32 channels_last.
//
// Per tile of the output: its window is transformed (winograd.h) into planes of pixels V, the weights into planes U, and
// for each product of two planes  M[tile, out] = sum over channels V[tile, c] U[c, out],  from which the tile is
// composed. Tiles are computed in blocks, whose V and M stay in the cache. Every sum is over channels in one order, so
// that a sample's result depends on nothing but that sample: not on its batch, block or thread. The weights may be given
// transformed, in up to 4 times the memory; else they are transformed in each call, once for all blocks where that
// needs at most SHARED bytes for a moment.

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <vector>

#include "tiles.h"
#include "weight_gradient.h"

namespace {

using at::Tensor;
using Maybe = std::optional<Tensor>;

constexpr int64_t CHUNK = 64;   // output channels whose weights are transformed, and whose M is in the cache, at once
constexpr int64_t SHARED = 32 << 20;
constexpr int64_t BLOCK = 96;   // tiles at most: 48 to 128 are within 3 %
constexpr int64_t ROWS = 6;     // tiles of one pass: 12 sums, 2 weights and a pixel are in 16 registers

// U[plane, out / 16, channel, 16] of the output channels k0 to k1, from the taps [out / 16, tap, channel, 16]
template <class Form>
void weigh(const float* taps, int64_t channels, int64_t k0, int64_t k1, float* U, int64_t plane) {
  constexpr int out = Form::weights_out;
  for (int64_t k = k0; k < k1; k += PANEL)
    for (int64_t c = 0; c < channels; ++c)
      for (int h = 0; h < PANEL; h += 8) {
        const float* w = taps + k * 9 * channels + c * PANEL + h;
        float* u = U + (k - k0) * channels + c * PANEL + h;
        Eight half[out][3], line[3], done[out];
#pragma GCC unroll 3
        for (int j = 0; j < 3; ++j) {
#pragma GCC unroll 3
          for (int r = 0; r < 3; ++r) line[r] = load(w + (3 * r + j) * channels * PANEL);
          Form::weights(line, &half[0][j], 3);
        }
#pragma GCC unroll 6
        for (int r = 0; r < out; ++r) {
          Form::weights(half[r], done, 1);
#pragma GCC unroll 6
          for (int j = 0; j < out; ++j) store(u + (r * out + j) * plane, done[j]);
        }
      }
}

// M[tile, 16] = sum over c of V[tile, c] U[c, 16] for R tiles. Every `every` channels one cache line of the next panel is
// requested, so that it arrives evenly while this one is used.
template <int R>
void panel(const float* v, int64_t v_row, const float* u, int64_t channels, float* m, int64_t m_row, const float* next,
           int64_t every) {
  Eight left[R], right[R];
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r) left[r] = right[r] = Eight{};
  for (int64_t c = 0; c < channels; next += PANEL) {
    __builtin_prefetch(next, 0, 2);
    const int64_t end = std::min(channels, c + every);
#pragma GCC unroll 2
    for (; c < end; ++c) {
      const Eight u0 = load(u + PANEL * c), u1 = load(u + PANEL * c + 8);
#pragma GCC unroll 6
      for (int r = 0; r < R; ++r) {
        const float x = v[r * v_row + c];
        left[r] += x * u0;
        right[r] += x * u1;
      }
    }
  }
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r) {
    store(m + r * m_row, left[r]);
    store(m + r * m_row + 8, right[r]);
  }
}

using Panel = void (*)(const float*, int64_t, const float*, int64_t, float*, int64_t, const float*, int64_t);
constexpr Panel PANELS[ROWS + 1] = {nullptr, panel<1>, panel<2>, panel<3>, panel<4>, panel<5>, panel<6>};

// M[product, tile, out] of a block and a chunk
template <class Form>
void multiply(int64_t channels, int64_t tiles, int64_t width, const float* V, const Planes& v, const float* U,
              int64_t u_plane, float* M, const Planes& m) {
  constexpr int products = Form::products, all = products * products;
  const auto pixels = [](int q) { return Form::pixel[q / products] * Form::pixels_out + Form::pixel[q % products]; };
  const auto weights = [](int q) { return Form::weight[q / products] * Form::weights_out + Form::weight[q % products]; };
  const int64_t groups = (tiles + ROWS - 1) / ROWS, lines = (channels + groups - 1) / groups;
  for (int q = 0; q < all; ++q)
    for (int64_t k = 0; k < width; k += PANEL) {
      const float* u = U + weights(q) * u_plane + k * channels;
      const float* next = k + PANEL < width ? u + PANEL * channels : U + weights(std::min(q + 1, all - 1)) * u_plane;
      for (int64_t g = 0; g < groups; ++g) {  // tiles shared out evenly: 16 are 5 + 5 + 6
        const int64_t from = g * tiles / groups, to = (g + 1) * tiles / groups;
        PANELS[to - from](V + pixels(q) * v.plane + from * v.row, v.row, u, channels,
                          M + q * m.plane + from * m.row + k, m.row, next + g * lines * PANEL, groups);
      }
    }
}

// The tiles of the output from M, clipped at the border, with the bias
template <class Form>
void write(const Call& s, int64_t first, int64_t tiles, int64_t k0, int64_t k1, const float* M, const Planes& at) {
  constexpr int in = Form::products, out = Form::outputs;
  for (int64_t i = 0; i < tiles; ++i) {
    const Tile tile = s.tile(first + i);
    const int64_t row = tile.row * out, column = tile.column * out;
    const int64_t high = std::min<int64_t>(out, s.rows - row), wide = std::min<int64_t>(out, s.columns - column);
    float* y = s.y + ((tile.sample * s.rows + row) * s.columns + column) * s.outs;
    for (int64_t k = k0; k < k1; k += 8) {
      const float* m = M + i * at.row + (k - k0);
      Eight half[out][in], line[in], done[out];
#pragma GCC unroll 6
      for (int j = 0; j < in; ++j) {
#pragma GCC unroll 6
        for (int r = 0; r < in; ++r) line[r] = load(m + (r * in + j) * at.plane);
        Form::output(line, &half[0][j], in);
      }
      const Eight bias = load(s.bias + k);
#pragma GCC unroll 4
      for (int r = 0; r < out; ++r) {
        Form::output(half[r], done, 1);
        if (r < high)
#pragma GCC unroll 4
          for (int j = 0; j < out; ++j)
            if (j < wide) store(y + (r * s.columns + j) * s.outs + k, done[j] + bias);
      }
    }
  }
}

// The transformed weights of all output channels.
template <class Form>
void weigh_all(const float* taps, int64_t channels, int64_t outs, float* U) {
  at::parallel_for(0, outs / PANEL, 1, [&](int64_t from, int64_t to) {
    weigh<Form>(taps, channels, from * PANEL, to * PANEL, U + from * PANEL * channels, outs * channels);
  });
}

// `tiles` tiles in equal blocks, a thread each; with fewer blocks than threads, the threads share the tiles of a block
// and then its output channels (a parallel_for inside another one is serial).
template <class Form>
void compute(const Call& s, int64_t tiles) {
  constexpr int v_planes = Form::pixels_out * Form::pixels_out, u_planes = Form::weights_out * Form::weights_out;
  constexpr int m_planes = Form::products * Form::products;
  const int64_t threads = at::get_num_threads();
  int64_t blocks = (tiles + BLOCK - 1) / BLOCK;
  if (blocks > 1) blocks = (blocks + threads - 1) / threads * threads;
  const int64_t size = (tiles + blocks - 1) / blocks;
  const Planes v(size, s.channels + PANEL), m(size, CHUNK);
  const int64_t chunks = (s.outs + CHUNK - 1) / CHUNK, every = u_planes * s.outs * s.channels;
  Tensor shared;
  const float* transformed = s.transformed;
  if (!transformed && blocks > 1 && every * 4 <= SHARED) {
    shared = at::empty({every}, at::kFloat);
    weigh_all<Form>(s.weight, s.channels, s.outs, shared.mutable_data_ptr<float>());
    transformed = shared.const_data_ptr<float>();
  }
  const int64_t u_plane = transformed ? s.outs * s.channels : CHUNK * s.channels + PANEL;

  const auto block = [&](int64_t first) {
    const int64_t count = std::min(size, tiles - first);
    float* V = room_for_pixels.of(v_planes * v.plane);
    at::parallel_for(0, count, std::max<int64_t>(1, 8192 / s.channels),
                     [&](int64_t from, int64_t to) { read<Form>(s, first, from, to, V, v); });
    at::parallel_for(0, chunks, 1, [&](int64_t from, int64_t to) {
      float *U = transformed ? nullptr : room_for_weights.of(u_planes * u_plane), *M = room_for_products.of(m_planes * m.plane);
      for (int64_t k0 = from * CHUNK; k0 < std::min(s.outs, to * CHUNK); k0 += CHUNK) {
        const int64_t k1 = std::min(s.outs, k0 + CHUNK);
        if (U) weigh<Form>(s.weight, s.channels, k0, k1, U, u_plane);
        multiply<Form>(s.channels, count, k1 - k0, V, v, U ? U : transformed + k0 * s.channels, u_plane, M, m);
        write<Form>(s, first, count, k0, k1, M, m);
      }
    });
  };
  const auto some = [&](int64_t from, int64_t to) {
    for (int64_t first = from * size; first < std::min(tiles, to * size); first += size) block(first);
  };
  if (blocks >= threads)
    at::parallel_for(0, blocks, 1, some);
  else
    some(0, blocks);
}

int64_t outputs_of(const Tensor& weight) { return weight.size(weight.dim() == 3 ? 1 : 0) * PANEL; }

// y of x (B, C, H, W), for all tiles or for those of a list; the weight as taps [C' / 16][9][C][16], or transformed
template <class Form>
void into(const Tensor& x, const Tensor& weight, const Maybe& bias, const Maybe& list, Tensor& y) {
  const int64_t C = x.size(1), K = outputs_of(weight), H = x.size(2), W = x.size(3);
  const int64_t high = H * Form::outputs / Form::step, wide = W * Form::outputs / Form::step;
  TORCH_CHECK(x.scalar_type() == at::kFloat && weight.scalar_type() == at::kFloat && y.scalar_type() == at::kFloat,
              "winograd: float32 expected");
  constexpr int64_t planes = Form::weights_out * Form::weights_out;
  const bool transformed = weight.dim() == 3;
  TORCH_CHECK(C % 8 == 0 && weight.is_contiguous() &&
                  (transformed ? weight.sizes() == at::IntArrayRef({planes, K / PANEL, C * PANEL})
                               : weight.sizes() == at::IntArrayRef({K / PANEL, 9, C, PANEL})),
              "winograd: a weight of (C'/16, 9, C, 16), or of (", planes, ", C'/16, 16 C), expected for this x, got ",
              weight.sizes());
  TORCH_CHECK(y.sizes() == at::IntArrayRef({x.size(0), K, high, wide}) &&
                  y.is_contiguous(at::MemoryFormat::ChannelsLast),
              "winograd: the output has another shape or memory format, ", y.sizes());
  TORCH_CHECK(!bias || bias->numel() == K, "winograd: a bias of ", K, " expected");
  const Tensor from = x.contiguous(at::MemoryFormat::ChannelsLast);
  const Tensor added = bias ? bias->to(at::kFloat).contiguous() : Tensor();
  const std::vector<float> zeros(std::max(C, K));
  const int64_t down = (high + Form::outputs - 1) / Form::outputs, across = (wide + Form::outputs - 1) / Form::outputs;
  int64_t tiles = x.size(0) * down * across;
  Tensor chosen;
  if (list) {
    chosen = list->to(at::kLong).contiguous();
    const int64_t* ids = chosen.const_data_ptr<int64_t>();
    TORCH_CHECK(std::all_of(ids, ids + chosen.numel(), [&](int64_t t) { return t >= 0 && t < tiles; }),
                "winograd: tiles are numbered from 0 to ", tiles - 1);
    tiles = chosen.numel();
  }
  if (tiles == 0) return;
  const float* w = weight.const_data_ptr<float>();
  compute<Form>({from.const_data_ptr<float>(), w, transformed ? w : nullptr,
                 added.defined() ? added.const_data_ptr<float>() : zeros.data(), zeros.data(), y.data_ptr<float>(),
                 list ? chosen.const_data_ptr<int64_t>() : nullptr, C, K, H, W, high, wide, down, across},
                tiles);
}

void choose(const Tensor& x, const Tensor& weight, const Maybe& bias, c10::string_view form, const Maybe& list,
            Tensor& y) {
  if (form == "F4")
    into<Four>(x, weight, bias, list, y);
  else if (form == "F2")
    into<Two>(x, weight, bias, list, y);
  else if (form == "up")
    into<Doubled>(x, weight, bias, list, y);
  else
    TORCH_CHECK(false, "winograd: the forms are F4, F2 and up, not ", form);
}

Tensor whole(const Tensor& x, const Tensor& weight, const Maybe& bias, c10::string_view form) {
  const int64_t scale = form == "up" ? 2 : 1;
  Tensor y = at::empty({x.size(0), outputs_of(weight), x.size(2) * scale, x.size(3) * scale}, x.options(),
                       at::MemoryFormat::ChannelsLast);
  choose(x, weight, bias, form, std::nullopt, y);
  return y;
}

template <class Form>
Tensor transformed(const Tensor& weight) {
  const int64_t C = weight.size(2), K = outputs_of(weight);
  TORCH_CHECK(weight.scalar_type() == at::kFloat && weight.is_contiguous() && weight.dim() == 4 && weight.size(1) == 9 &&
                  weight.size(3) == PANEL,
              "winograd: a float32 weight of (C'/16, 9, C, 16) expected, got ", weight.sizes());
  Tensor U = at::empty({Form::weights_out * Form::weights_out, K / PANEL, C * PANEL}, weight.options());
  weigh_all<Form>(weight.const_data_ptr<float>(), C, K, U.mutable_data_ptr<float>());
  return U;
}

Tensor transform(const Tensor& weight, c10::string_view form) {
  TORCH_CHECK(form == "F4" || form == "F2" || form == "up", "winograd: the forms are F4, F2 and up, not ", form);
  return form == "F4" ? transformed<Four>(weight) : form == "F2" ? transformed<Two>(weight) : transformed<Doubled>(weight);
}

Tensor weight_gradient(const Tensor& grad, const Tensor& x) {
  const int64_t C = x.size(1), K = grad.size(1), H = x.size(2), W = x.size(3);
  TORCH_CHECK(x.scalar_type() == at::kFloat && grad.scalar_type() == at::kFloat, "winograd: float32 expected");
  TORCH_CHECK(C % 8 == 0 && K % PANEL == 0 && grad.sizes() == at::IntArrayRef({x.size(0), K, H, W}),
              "winograd: a gradient of (B, C', H, W) expected, C a multiple of 8 and C' of 16, got ", grad.sizes());
  const Tensor from = x.contiguous(at::MemoryFormat::ChannelsLast), by = grad.contiguous(at::MemoryFormat::ChannelsLast);
  Tensor to = at::empty({K / PANEL, 9, C, PANEL}, x.options(), at::MemoryFormat::Contiguous);
  const std::vector<float> zeros(std::max(C, K));
  const int64_t down = (H + 3) / 4, across = (W + 3) / 4;
  const Call s{from.const_data_ptr<float>(), nullptr, nullptr, nullptr, zeros.data(), nullptr, nullptr, C, K, H, W, H, W, down, across};
  differentiate<Four>(s, by.const_data_ptr<float>(), x.size(0) * down * across, to.mutable_data_ptr<float>());
  return to;
}

void at_tiles(const Tensor& x, const Tensor& weight, const Maybe& bias, c10::string_view form, const Tensor& tiles,
              Tensor y) {
  choose(x, weight, bias, form, tiles, y);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(unnoise, library) {
  library.def("winograd(Tensor x, Tensor weight, Tensor? bias, str form) -> Tensor");
  library.def("winograd_transform(Tensor weight, str form) -> Tensor");
  library.def("winograd_weight_gradient(Tensor grad, Tensor x) -> Tensor");
  library.def("winograd_tiles(Tensor x, Tensor weight, Tensor? bias, str form, Tensor tiles, Tensor(a!) y) -> ()");
}

TORCH_LIBRARY_IMPL(unnoise, CPU, library) {
  library.impl("winograd", &whole);
  library.impl("winograd_transform", &transform);
  library.impl("winograd_weight_gradient", &weight_gradient);
  library.impl("winograd_tiles", &at_tiles);
}
