// The gradient of the weights of a 3x3 convolution, by the transposes of the transforms of winograd.h.
//
//     U[plane, c, out] = sum over tiles V[plane, tile, c] W[plane, tile, out]      dL/dw = taps(U)
//
// V are the transformed windows of x, W the transformed tiles of dL/dy. Blocks of tiles are added to U one after the
// other, and each of its panels by one thread: the sums have one order, whatever the number of threads.

#pragma once

#include <ATen/Parallel.h>

#include <algorithm>

#include "tiles.h"

namespace {

constexpr int64_t SUMMED = 192;  // tiles of a block: a panel's columns of V and W stay in a cache of 32 KiB
constexpr int64_t COLUMNS = 6;   // channels of one pass of the kernel

thread_local Room room_for_windows, room_for_gradients, room_for_sums;

// W[plane, out / 16, tile, 16] of a block, from dL/dy
template <class Form>
void read_gradient(const Call& s, const float* grad, int64_t first, int64_t from, int64_t to, float* W, int64_t plane,
                   int64_t tiles) {
  constexpr int in = Form::outputs, out = Form::products;
  for (int64_t i = from; i < to; ++i) {
    const Tile tile = s.tile(first + i);
    const float* pixel[in][in];
    for (int r = 0; r < in; ++r)
      for (int c = 0; c < in; ++c) {
        const int64_t row = tile.row * in + r, column = tile.column * in + c;
        const bool outside = row >= s.height || column >= s.width;
        pixel[r][c] = outside ? s.zeros : grad + ((tile.sample * s.height + row) * s.width + column) * s.outs;
      }
    for (int64_t k = 0; k < s.outs; k += 8) {
      float* w = W + (k / PANEL * tiles + i) * PANEL + k % PANEL;
      Eight half[out][in], line[in], done[out];
#pragma GCC unroll 4
      for (int j = 0; j < in; ++j) {
#pragma GCC unroll 4
        for (int r = 0; r < in; ++r) line[r] = load(pixel[r][j] + k);
        Form::gradients(line, &half[0][j], in);
      }
#pragma GCC unroll 6
      for (int r = 0; r < out; ++r) {
        Form::gradients(half[r], done, 1);
#pragma GCC unroll 6
        for (int j = 0; j < out; ++j) store(w + (r * out + j) * plane, done[j]);
      }
    }
  }
}

// U[c, 16] += sum over tiles of V[tile, c] W[tile, 16], for R channels
template <int R>
void add_products(const float* v, int64_t v_row, const float* w, int64_t tiles, float* u) {
  Eight left[R], right[R];
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r) left[r] = right[r] = Eight{};
#pragma GCC unroll 2
  for (int64_t t = 0; t < tiles; ++t, v += v_row, w += PANEL) {
    __builtin_prefetch(v + COLUMNS, 0, 3);
    const Eight w0 = load(w), w1 = load(w + 8);
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r) {
      left[r] += v[r] * w0;
      right[r] += v[r] * w1;
    }
  }
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r) {
    store(u + r * PANEL, load(u + r * PANEL) + left[r]);
    store(u + r * PANEL + 8, load(u + r * PANEL + 8) + right[r]);
  }
}

using AddProducts = void (*)(const float*, int64_t, const float*, int64_t, float*);
constexpr AddProducts ADD_PRODUCTS[COLUMNS + 1] = {nullptr,         add_products<1>, add_products<2>, add_products<3>,
                                                   add_products<4>, add_products<5>, add_products<6>};

// dL/dw[out / 16, tap, c, 16] of one panel
template <class Form>
void taps_of(const float* U, int64_t plane, int64_t channels, float* to) {
  constexpr int in = Form::products;
  for (int64_t c = 0; c < channels; ++c)
    for (int h = 0; h < PANEL; h += 8) {
      const float* u = U + c * PANEL + h;
      Eight half[3][in], line[in], done[3];
#pragma GCC unroll 6
      for (int j = 0; j < in; ++j) {
#pragma GCC unroll 6
        for (int r = 0; r < in; ++r) line[r] = load(u + (r * in + j) * plane);
        Form::taps(line, &half[0][j], in);
      }
#pragma GCC unroll 3
      for (int r = 0; r < 3; ++r) {
        Form::taps(half[r], done, 1);
#pragma GCC unroll 3
        for (int j = 0; j < 3; ++j) store(to + ((3 * r + j) * channels + c) * PANEL + h, done[j]);
      }
    }
}

template <class Form>
void differentiate(const Call& s, const float* grad, int64_t tiles, float* to) {
  constexpr int64_t planes = Form::products * Form::products;
  const int64_t size = std::min(tiles, SUMMED), panels = s.outs / PANEL, groups = (s.channels + COLUMNS - 1) / COLUMNS;
  Planes v(size, s.channels);
  v.row = ((s.channels + PANEL - 1) / PANEL | 1) * PANEL;  // an odd number of cache lines: a column is in all sets
  v.plane = size * v.row + PANEL;
  const int64_t w_plane = panels * size * PANEL + PANEL, u_plane = panels * s.channels * PANEL + PANEL;
  float *V = room_for_windows.of(planes * v.plane), *W = room_for_gradients.of(planes * w_plane);
  float* U = room_for_sums.of(planes * u_plane);
  std::fill(U, U + planes * u_plane, 0.0f);

  for (int64_t first = 0; first < tiles; first += size) {
    const int64_t count = std::min(size, tiles - first);
    at::parallel_for(0, count, std::max<int64_t>(1, 8192 / (s.channels + s.outs)), [&](int64_t from, int64_t to) {
      read<Form>(s, first, from, to, V, v);
      read_gradient<Form>(s, grad, first, from, to, W, w_plane, size);
    });
    at::parallel_for(0, planes * panels, 1, [&](int64_t from, int64_t to) {
      for (int64_t i = from; i < to; ++i) {
        const int64_t q = i / panels, k = i % panels;
        const float *vs = V + q * v.plane, *ws = W + q * w_plane + k * size * PANEL;
        float* us = U + q * u_plane + k * s.channels * PANEL;
        for (int64_t g = 0; g < groups; ++g) {  // channels shared out evenly
          const int64_t c0 = g * s.channels / groups, c1 = (g + 1) * s.channels / groups;
          ADD_PRODUCTS[c1 - c0](vs + c0, v.row, ws, count, us + c0 * PANEL);
        }
      }
    });
  }
  at::parallel_for(0, panels, 1, [&](int64_t from, int64_t until) {
    for (int64_t k = from; k < until; ++k)
      taps_of<Form>(U + k * s.channels * PANEL, u_plane, s.channels, to + k * 9 * s.channels * PANEL);
  });
}

}  // namespace
