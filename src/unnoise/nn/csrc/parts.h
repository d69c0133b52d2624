// Parts of a tensor, and the loop over samples and parts.

#pragma once

#include <ATen/Parallel.h>

#include <algorithm>
#include <cstdint>

#include "vectors.h"

namespace {

constexpr int64_t PART = 16384;  // elements in a part, so that two operands fit a first- or second-level cache

// The sizes of one call. `last`: the channels of a pixel are contiguous in memory; else the pixels of a channel are.
struct Sizes {
  int64_t samples, channels, pixels, groups;
  bool last;

  int64_t width() const { return channels / groups; }
  int64_t step() const { return std::max<int64_t>(1, PART / channels); }              // pixels in a part
  int64_t parts() const { return last ? (pixels + step() - 1) / step() : channels; }  // tasks per sample
  int64_t sums() const { return last ? parts() : 1; }                                 // rows of partial sums per sample
  int64_t offset(int64_t n) const { return n * channels * pixels; }

  // Calls visit(channel, first element, stride, count, lanes) for every strip of part j: `count` vectors of `lanes`
  // numbers, `stride` elements apart, of the channels from `channel` on (last), or all of `channel`.
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
  // `take` reads a row of per-channel numbers for a strip; `give` adds the sums over a strip to such a row.
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

// Runs `first` on every part of a sample, then `fold`, then `second` on every part: in parallel over samples if there
// are enough for the threads, else over parts.
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

}  // namespace
