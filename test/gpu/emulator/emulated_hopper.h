// What native/cuda/hopper.h wraps in PTX: the bodies for the emulator. Sums are float64, rounded once for every 16 columns; a tensor core rounds
// on the way.
#pragma once

#include "emulated_mma.h"

struct alignas(64) CUtensorMap {
  const void* data;
  int64_t rows, pitch;
  int box_rows;
};

namespace emulator {

inline void tensor_load(void* shared, const CUtensorMap& map, int32_t col, int32_t row, uint64_t* barrier) {
  if (col < 0 || col % 64 != 0 || col >= map.pitch || row < 0) fault("a load of column %d and row %d of %ld x %ld", col, row, map.rows, map.pitch);
  const int64_t there = map.rows - row;
  start_load({static_cast<char*>(shared), static_cast<const char*>(map.data) + (row * map.pitch + col) * 2, map.pitch * 2, map.box_rows,
              static_cast<int>(there < 0 ? 0 : there < map.box_rows ? there : map.box_rows), barrier});
}

// As on a GPU: the address / 16, here from the start of the block's dynamic shared memory on.
inline uint64_t wgmma_descriptor(const void* tile) {
  if (!is_shared(tile, 128)) fault("wgmma of what is not in shared memory");
  return static_cast<uint64_t>(static_cast<const char*>(tile) - static_cast<const char*>(dynamic_shared())) / 16;
}

// 16 numbers of a row of the tile behind a descriptor.
template <class Number>
void read_row(float (&numbers)[16], uint64_t descriptor, int row) {
  const auto start = reinterpret_cast<uintptr_t>(dynamic_shared());
  for (int k = 0; k < 16; ++k) {
    uintptr_t at = start + descriptor * 16 + static_cast<uintptr_t>(row * 128 + k * 2);
    at ^= (at >> 7 & 7) << 4;
    if (!is_shared(reinterpret_cast<const void*>(at), 2)) fault("wgmma of what is not in shared memory");
    uint16_t bits;
    std::memcpy(&bits, reinterpret_cast<const void*>(at), 2);
    numbers[k] = number_of(bits, static_cast<const Number*>(nullptr));
  }
}

// A thread's numbers of d.
template <class Number>
void multiply_k16(const Wgmma& wgmma, int thread) {
  const int first_row = thread / 32 * 16 + thread % 32 / 4;
  float left[2][16], right[16];
  for (int half = 0; half < 2; ++half) read_row<Number>(left[half], wgmma.a, first_row + 8 * half);
  for (int j = 0; j < wgmma.cols / 8; ++j) {
    for (int r = 0; r < 2; ++r) {
      read_row<Number>(right, wgmma.b, 8 * j + thread % 4 * 2 + r);
      for (int half = 0; half < 2; ++half) {
        float& d = wgmma.d[4 * j + 2 * half + r];
        double total = wgmma.add ? static_cast<double>(d) : 0;
        for (int k = 0; k < 16; ++k) total += static_cast<double>(left[half][k]) * static_cast<double>(right[k]);
        d = static_cast<float>(total);
      }
    }
  }
}

}  // namespace emulator
