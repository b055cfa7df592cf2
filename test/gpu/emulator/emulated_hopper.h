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
  const int64_t there = map.rows - row, cols = map.pitch - col;
  start_load({static_cast<char*>(shared), static_cast<const char*>(map.data) + (row * map.pitch + col) * 2, map.pitch * 2,
              static_cast<int>(cols < 64 ? cols * 2 : 128), map.box_rows, static_cast<int>(there < 0 ? 0 : there < map.box_rows ? there : map.box_rows),
              barrier});
}

// As on a GPU: the address / 16, here from the start of the block's dynamic shared memory on.
inline uint64_t wgmma_descriptor(const void* tile) {
  if (!is_shared(tile, 128)) fault("wgmma of what is not in shared memory");
  return static_cast<uint64_t>(static_cast<const char*>(tile) - static_cast<const char*>(dynamic_shared())) / 16;
}

// The bytes from a tile to the next stand from bit 16 on.
inline uint64_t wgmma_turned_descriptor(const void* tile, int tile_bytes) {
  return wgmma_descriptor(tile) | static_cast<uint64_t>(tile_bytes / 16) << 16;
}

// Of the tile behind a descriptor: number `col` of a row, counted from where the descriptor points to.
template <class Number>
float read_number(uint64_t descriptor, int row, int col) {
  uintptr_t at = reinterpret_cast<uintptr_t>(dynamic_shared()) + (descriptor & 0xffff) * 16 + static_cast<uintptr_t>(row * 128 + col * 2);
  at ^= (at >> 7 & 7) << 4;
  if (!is_shared(reinterpret_cast<const void*>(at), 2)) fault("wgmma of what is not in shared memory");
  uint16_t bits;
  std::memcpy(&bits, reinterpret_cast<const void*>(at), 2);
  return number_of(bits, static_cast<const Number*>(nullptr));
}

// Row `row` of A or B: 16 numbers. Turned: a column of the tiles.
template <class Number, bool turned>
void read_row(float (&numbers)[16], uint64_t descriptor, int row) {
  const uint64_t tile = descriptor + (turned ? static_cast<uint64_t>(row / 64) * (descriptor >> 16) : 0);
  for (int k = 0; k < 16; ++k) numbers[k] = turned ? read_number<Number>(tile, k, row % 64) : read_number<Number>(descriptor, row, k);
}

// A thread's numbers of d.
template <class Number, bool turned>
void add_products(const Wgmma& wgmma, int thread, const float (&left)[2][16]) {
  float right[16];
  for (int j = 0; j < wgmma.cols / 8; ++j) {
    for (int r = 0; r < 2; ++r) {
      read_row<Number, turned>(right, wgmma.b, 8 * j + thread % 4 * 2 + r);
      for (int half = 0; half < 2; ++half) {
        float& d = wgmma.d[4 * j + 2 * half + r];
        double total = wgmma.add ? static_cast<double>(d) : 0;
        for (int k = 0; k < 16; ++k) total += static_cast<double>(left[half][k]) * static_cast<double>(right[k]);
        d = static_cast<float>(total);
      }
    }
  }
}

template <class Number>
void multiply_k16(float* d, int cols, uint64_t a, uint64_t b, bool add) {
  start_wgmma({d, cols, a, b, add, [](const Wgmma& self, int thread) {
                 float left[2][16];
                 for (int half = 0; half < 2; ++half) read_row<Number, false>(left[half], self.a, thread / 32 * 16 + thread % 32 / 4 + 8 * half);
                 add_products<Number, false>(self, thread, left);
               }, {}});
}

// A of the warp's registers, as they are now: what a lane misses of its rows, its neighbours have.
template <class Number, bool turned>
void multiply_k16(float* d, int cols, const uint32_t* a, uint64_t b, bool add) {
  struct Fragment {
    uint32_t registers[4];
  };
  Wgmma wgmma{d, cols, 0, b, add, [](const Wgmma& self, int thread) { add_products<Number, turned>(self, thread, self.left); }, {}};
  for (int i = 0; i < 4; ++i) {
    const Fragment part = shuffle(0xffffffffu, Fragment{{a[0], a[1], a[2], a[3]}}, lane() / 4 * 4 + i);
    for (int r = 0; r < 4; ++r) {
      for (int half = 0; half < 2; ++half) {
        wgmma.left[r % 2][r / 2 * 8 + 2 * i + half] = number_of(static_cast<uint16_t>(part.registers[r] >> 16 * half), static_cast<const Number*>(nullptr));
      }
    }
  }
  start_wgmma(wgmma);
}

}  // namespace emulator
