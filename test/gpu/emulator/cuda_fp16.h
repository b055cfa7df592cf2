// __half and its conversions (round to nearest even, exact); no arithmetic: kernels compute in float32.
#pragma once

#include "base/dtype.h"
#include "device.h"

struct alignas(2) __half { uint16_t bits; };
struct alignas(4) __half2 { __half x, y; };

inline float __half2float(__half x) { return parley::fp16_to_float(x.bits); }
inline __half __float2half_rn(float x) { return {parley::float_to_fp16(x)}; }
inline __half __float2half(float x) { return __float2half_rn(x); }
inline float2 __half22float2(__half2 x) { return {__half2float(x.x), __half2float(x.y)}; }
inline __half2 __float22half2_rn(float2 x) { return {__float2half_rn(x.x), __float2half_rn(x.y)}; }
inline __half2 __floats2half2_rn(float x, float y) { return {__float2half_rn(x), __float2half_rn(y)}; }
inline unsigned short __half_as_ushort(__half x) { return x.bits; }
inline __half __ushort_as_half(unsigned short bits) { return {bits}; }
