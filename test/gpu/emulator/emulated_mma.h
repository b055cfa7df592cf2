// What native/cuda/mma.h wraps in PTX, lane by lane: the bodies for the emulator. Sums are float64, rounded once; a tensor core
// rounds on the way.
#pragma once

#include "cuda_bf16.h"
#include "cuda_fp16.h"
#include "device.h"

namespace emulator {

struct Mma {
  float* d;
  const uint32_t* a;
  const uint32_t* b;
};

inline float number_of(uint16_t bits, const __half*) { return parley::fp16_to_float(bits); }
inline float number_of(uint16_t bits, const __nv_bfloat16*) { return parley::bf16_to_float(bits); }

template <class Number>
void mma_m16n8k16(float* d, const uint32_t* a, const uint32_t* b) {
  Mma mine{d, a, b};
  meet(Meeting::mma, 0xffffffffu, &mine, [](void* const lanes[32], uint32_t participants) {
    if (participants != 0xffffffffu) fault("mma without all 32 lanes");
    const Number* type = nullptr;
    static float left[16][16], right[8][16];  // [row][k], [col][k]
    for (int t = 0; t < 32; ++t) {
      const Mma& lane = *static_cast<Mma*>(lanes[t]);
      const int group = t / 4, pair = t % 4 * 2;
      for (int half = 0; half < 2; ++half) {
        for (int r = 0; r < 4; ++r) {
          left[group + r % 2 * 8][pair + r / 2 * 8 + half] = number_of(static_cast<uint16_t>(lane.a[r] >> 16 * half), type);
        }
        for (int r = 0; r < 2; ++r) right[group][pair + r * 8 + half] = number_of(static_cast<uint16_t>(lane.b[r] >> 16 * half), type);
      }
    }
    for (int t = 0; t < 32; ++t) {
      const Mma& lane = *static_cast<Mma*>(lanes[t]);
      for (int r = 0; r < 4; ++r) {
        const float* row = left[t / 4 + r / 2 * 8];
        const float* col = right[t % 4 * 2 + r % 2];
        double total = 0;
        for (int k = 0; k < 16; ++k) total += static_cast<double>(row[k]) * static_cast<double>(col[k]);
        lane.d[r] = static_cast<float>(static_cast<double>(lane.d[r]) + total);
      }
    }
  });
}

struct LoadMatrix {
  uint32_t* registers;
  const void* row;
};

template <int matrices, bool transposed>
void ldmatrix(uint32_t* registers, const void* row) {
  if (!is_shared(row, 16) && lane() < 8 * matrices) fault("ldmatrix of a row that is not in shared memory");
  if (reinterpret_cast<uintptr_t>(row) % 16 != 0 && lane() < 8 * matrices) fault("ldmatrix of an unaligned row");
  LoadMatrix mine{registers, row};
  meet(Meeting::ldmatrix, 0xffffffffu, &mine, [](void* const lanes[32], uint32_t participants) {
    if (participants != 0xffffffffu) fault("ldmatrix without all 32 lanes");
    for (int t = 0; t < 32; ++t) {
      for (int m = 0; m < matrices; ++m) {
        uint16_t numbers[2];
        for (int half = 0; half < 2; ++half) {
          const int at_row = transposed ? t % 4 * 2 + half : t / 4;
          const int at_col = transposed ? t / 4 : t % 4 * 2 + half;
          const void* from = static_cast<LoadMatrix*>(lanes[m * 8 + at_row])->row;
          std::memcpy(&numbers[half], static_cast<const char*>(from) + at_col * 2, 2);
        }
        static_cast<LoadMatrix*>(lanes[t])->registers[m] = numbers[0] | static_cast<uint32_t>(numbers[1]) << 16;
      }
    }
  });
}

}  // namespace emulator
