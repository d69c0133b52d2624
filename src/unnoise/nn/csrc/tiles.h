// What the operations of winograd.cpp share: memory of a thread, the tiles of a picture, and their transformed windows.

#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>

#ifdef __linux__
#include <sys/mman.h>
#endif

#include "winograd.h"

namespace {

constexpr int64_t PANEL = 16;  // output channels of one pass of the kernel: two vectors, and one cache line

INLINE Eight load(const float* from) {
  Eight v;
  std::memcpy(&v, from, sizeof v);
  return v;
}
INLINE void store(float* to, Eight v) { std::memcpy(to, &v, sizeof v); }

// Memory of a thread, kept for its next call, in pages of 2 MiB where the system has them.
struct Room {
  float* start = nullptr;
  int64_t size = 0;

  float* of(int64_t floats) {
    constexpr int64_t page = 1 << 21;
    const int64_t bytes = (4 * floats + page - 1) / page * page;
    if (bytes > size) {
      std::free(start);
      size = 0;
      start = static_cast<float*>(std::aligned_alloc(page, bytes));
      TORCH_CHECK(start, "winograd: no memory for ", bytes, " bytes");
      size = bytes;
#ifdef MADV_HUGEPAGE
      madvise(start, bytes, MADV_HUGEPAGE);
#endif
    }
    return start;
  }
  ~Room() { std::free(start); }
};
thread_local Room room_for_pixels, room_for_weights, room_for_products;

struct Tile {
  int64_t sample, row, column;
};

// The tensors of a call as addresses and sizes; `list` are the tiles to compute, if not all.
struct Call {
  const float *x, *weight, *transformed, *bias, *zeros;  // one of weight and transformed, the other may be null
  float* y;
  const int64_t* list;
  int64_t channels, outs, height, width, rows, columns, down, across;  // of x, of y, and tiles of a sample

  Tile tile(int64_t i) const {
    const int64_t t = list ? list[i] : i, inside = t % (down * across);
    return {t / (down * across), inside / across, inside % across};
  }
};

// A cache line more per tile and per plane, since strides that are powers of two compete for the same cache lines.
struct Planes {
  int64_t row, plane;
  Planes(int64_t rows, int64_t length) : row(length), plane(rows * length + PANEL) {}
};

// V[plane, tile, channel] of a block
template <class Form>
void read(const Call& s, int64_t first, int64_t from, int64_t to, float* V, const Planes& at) {
  constexpr int window = Form::window, out = Form::pixels_out;
  for (int64_t i = from; i < to; ++i) {
    const Tile tile = s.tile(first + i);
    const float* pixel[window][window];
    for (int r = 0; r < window; ++r)
      for (int c = 0; c < window; ++c) {
        const int64_t row = tile.row * Form::step - 1 + r, column = tile.column * Form::step - 1 + c;
        const bool outside = row < 0 || row >= s.height || column < 0 || column >= s.width;
        pixel[r][c] = outside ? s.zeros : s.x + ((tile.sample * s.height + row) * s.width + column) * s.channels;
      }
    float* v = V + i * at.row;
    for (int64_t c = 0; c < s.channels; c += 8) {
      Eight half[out][window], line[window], done[out];
#pragma GCC unroll 6
      for (int j = 0; j < window; ++j) {
#pragma GCC unroll 6
        for (int r = 0; r < window; ++r) line[r] = load(pixel[r][j] + c);
        Form::pixels(line, &half[0][j], window);
      }
#pragma GCC unroll 6
      for (int r = 0; r < out; ++r) {
        Form::pixels(half[r], done, 1);
#pragma GCC unroll 6
        for (int j = 0; j < out; ++j) store(v + (r * out + j) * at.plane + c, done[j]);
      }
    }
  }
}

}  // namespace
