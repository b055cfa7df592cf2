// The number types of weights and KV pages, and scalar conversions between them (IEEE 754 round to nearest even).
#pragma once

#include <cstdint>
#include <cstring>

#include "contract.h"

namespace parley {

constexpr int64_t dtype_bytes(DType dtype) { return dtype == DType::float32 ? 4 : 2; }

inline const char* dtype_name(DType dtype) {
  return dtype == DType::float32 ? "float32" : dtype == DType::float16 ? "float16" : "bfloat16";
}

inline float bits_to_float(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

inline uint32_t float_to_bits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

inline float bf16_to_float(uint16_t half) { return bits_to_float(static_cast<uint32_t>(half) << 16); }

inline uint16_t float_to_bf16(float value) {
  const uint32_t bits = float_to_bits(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((bits >> 16) | 0x40u);  // NaN stays NaN
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

inline float fp16_to_float(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
  const uint32_t magnitude = half & 0x7fffu;
  if (magnitude >= 0x7c00u) return bits_to_float(sign | 0x7f800000u | ((magnitude & 0x3ffu) << 13));  // infinity, NaN
  // Shifting exponent and mantissa into place leaves a number 2^112 too small, subnormals included: one multiply mends both.
  return bits_to_float(sign | float_to_bits(bits_to_float(magnitude << 13) * bits_to_float(0x77800000u)));
}

inline uint16_t float_to_fp16(float value) {
  const uint32_t bits = float_to_bits(value);
  const uint16_t sign = static_cast<uint16_t>((bits >> 16) & 0x8000u);
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return sign | 0x7e00u;   // NaN
  if (magnitude >= 0x477ff000u) return sign | 0x7c00u;  // rounds to 65536 or more: infinity
  if (magnitude < 0x38800000u) {                        // below 2^-14: subnormal; adding 0.5 makes the FPU round the mantissa
    const float shifted = bits_to_float(magnitude) + 0.5f;
    return static_cast<uint16_t>(sign | (float_to_bits(shifted) - 0x3f000000u));
  }
  const uint32_t rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1u);
  return static_cast<uint16_t>(sign | ((rounded - 0x38000000u) >> 13));
}

// The number at `index` of an array of `dtype`.
inline float load_number(const void* data, int64_t index, DType dtype) {
  if (dtype == DType::float32) {
    float value;
    std::memcpy(&value, static_cast<const char*>(data) + index * 4, 4);
    return value;
  }
  uint16_t half;
  std::memcpy(&half, static_cast<const char*>(data) + index * 2, 2);
  return dtype == DType::float16 ? fp16_to_float(half) : bf16_to_float(half);
}

inline void store_number(void* data, int64_t index, DType dtype, float value) {
  if (dtype == DType::float32) {
    std::memcpy(static_cast<char*>(data) + index * 4, &value, 4);
    return;
  }
  const uint16_t half = dtype == DType::float16 ? float_to_fp16(value) : float_to_bf16(value);
  std::memcpy(static_cast<char*>(data) + index * 2, &half, 2);
}

}  // namespace parley
