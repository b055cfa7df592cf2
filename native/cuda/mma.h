// Tensor cores and asynchronous copies: with hopper.h, the only PTX of Parley. Fragment layouts are those of the PTX manual, "Matrix Fragments for
// mma.m16n8k16 with floating point type": of lane t, with group = t / 4 and pair = t % 4,
//
//   A [16 rows, 16 k]:  a[0] = A[group, 2 pair + {0, 1}]      a[1] = A[group + 8, 2 pair + {0, 1}]
//                       a[2] = A[group, 2 pair + 8 + {0, 1}]  a[3] = A[group + 8, 2 pair + 8 + {0, 1}]
//   B [16 k, 8 cols]:   b[0] = B[2 pair + {0, 1}, group]      b[1] = B[2 pair + 8 + {0, 1}, group]
//   D [16 rows, 8 cols]: d[0], d[1] = D[group, 2 pair + {0, 1}]  d[2], d[3] = D[group + 8, 2 pair + {0, 1}]
//
// the lower of two numbers in the lower 16 bits of its register.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

#ifdef PARLEY_CUDA_EMULATED
#include "emulated_mma.h"
#endif

namespace parley {
namespace cuda {

// d += A B in float32, A and B of Number: __half or __nv_bfloat16. All 32 lanes of the warp take part.
template <class Number>
__device__ __forceinline__ void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]);

// Two numbers rounded to Number (nearest, even), as a register of a fragment.
template <class Number>
__device__ __forceinline__ uint32_t pack_pair(float low, float high);
template <>
__device__ __forceinline__ uint32_t pack_pair<__half>(float low, float high) {
  return __half_as_ushort(__float2half_rn(low)) | static_cast<uint32_t>(__half_as_ushort(__float2half_rn(high))) << 16;
}
template <>
__device__ __forceinline__ uint32_t pack_pair<__nv_bfloat16>(float low, float high) {
  return __bfloat16_as_ushort(__float2bfloat16_rn(low)) | static_cast<uint32_t>(__bfloat16_as_ushort(__float2bfloat16_rn(high))) << 16;
}

// Four 8 x 8 matrices of 16-bit numbers from shared memory: lane i says where row i % 8 of matrix i / 8 starts (16 bytes, aligned to
// 16). r[m] of lane t: row t / 4, columns 2 (t % 4) + {0, 1} of matrix m. Transposed: rows 2 (t % 4) + {0, 1}, column t / 4.
//
// So with matrices (rows 0-7, k 0-7), (rows 8-15, k 0-7), (rows 0-7, k 8-15), (rows 8-15, k 8-15) of a row-major A, r is mma's a; with
// (cols 0-7, k 0-7), (cols 0-7, k 8-15) of a B stored [cols, k], r[0], r[1] are mma's b; of one stored [k, cols] they are so transposed.
// The rows start at (row ^ flip) + offset, in bytes: where both are constants, the addresses of a loop over them cost next to nothing.
__device__ __forceinline__ void ldmatrix_x4(uint32_t (&r)[4], const void* row, int flip = 0, int offset = 0);
__device__ __forceinline__ void ldmatrix_x4_trans(uint32_t (&r)[4], const void* row, int flip = 0, int offset = 0);
// The same of two matrices; the addresses of lanes 0-15 count.
__device__ __forceinline__ void ldmatrix_x2(uint32_t (&r)[2], const void* row, int flip = 0, int offset = 0);
__device__ __forceinline__ void ldmatrix_x2_trans(uint32_t (&r)[2], const void* row);

// Starts copying 16 bytes, both ends aligned to 16; zeros instead if not `valid` (then nothing is read). They are there for this thread
// after a cp_async_wait, for others after a barrier behind it.
__device__ __forceinline__ void cp_async_16(void* shared, const void* global, bool valid = true);
// Closes a group: the copies since the last one.
__device__ __forceinline__ void cp_async_commit();
// Waits until at most `groups_left` of the newest groups are under way.
template <int groups_left>
__device__ __forceinline__ void cp_async_wait();

// 2^x to 2 ulp of float32; 0 below the smallest normal number.
__device__ __forceinline__ float exp2_approximate(float x);

#ifdef PARLEY_CUDA_EMULATED

template <class Number>
void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  emulator::mma_m16n8k16<Number>(d, a, b);
}
inline const void* shared_address(const void* row, int flip, int offset) {
  return reinterpret_cast<const char*>(reinterpret_cast<uintptr_t>(row) ^ static_cast<uintptr_t>(flip)) + offset;
}
inline void ldmatrix_x4(uint32_t (&r)[4], const void* row, int flip, int offset) {
  emulator::ldmatrix<4, false>(r, shared_address(row, flip, offset));
}
inline void ldmatrix_x4_trans(uint32_t (&r)[4], const void* row, int flip, int offset) {
  emulator::ldmatrix<4, true>(r, shared_address(row, flip, offset));
}
inline void ldmatrix_x2(uint32_t (&r)[2], const void* row, int flip, int offset) {
  emulator::ldmatrix<2, false>(r, shared_address(row, flip, offset));
}
inline void ldmatrix_x2_trans(uint32_t (&r)[2], const void* row) { emulator::ldmatrix<2, true>(r, row); }
inline void cp_async_16(void* shared, const void* global, bool valid) { emulator::copy_async(shared, global, 16, valid ? 16 : 0); }
inline void cp_async_commit() { emulator::commit_copies(); }
template <int groups_left>
void cp_async_wait() {
  emulator::wait_for_copies(groups_left);
}
inline float exp2_approximate(float x) {
  const float result = std::exp2(x);
  return result < 0x1p-126f ? 0 : result;
}

#else

template <>
__device__ __forceinline__ void mma_m16n8k16<__half>(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};\n"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

template <>
__device__ __forceinline__ void mma_m16n8k16<__nv_bfloat16>(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};\n"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

__device__ __forceinline__ uint32_t shared_address(const void* shared) { return static_cast<uint32_t>(__cvta_generic_to_shared(shared)); }

__device__ __forceinline__ uint32_t shared_address(const void* row, int flip, int offset) {
  return (shared_address(row) ^ static_cast<uint32_t>(flip)) + static_cast<uint32_t>(offset);
}

__device__ __forceinline__ void ldmatrix_x4(uint32_t (&r)[4], const void* row, int flip, int offset) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row, flip, offset))
               : "memory");
}
__device__ __forceinline__ void ldmatrix_x4_trans(uint32_t (&r)[4], const void* row, int flip, int offset) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row, flip, offset))
               : "memory");
}
__device__ __forceinline__ void ldmatrix_x2(uint32_t (&r)[2], const void* row, int flip, int offset) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];\n"
               : "=r"(r[0]), "=r"(r[1])
               : "r"(shared_address(row, flip, offset))
               : "memory");
}
__device__ __forceinline__ void ldmatrix_x2_trans(uint32_t (&r)[2], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];\n"
               : "=r"(r[0]), "=r"(r[1])
               : "r"(shared_address(row))
               : "memory");
}

// .cg: past the first-level cache, which streamed numbers would only empty.
__device__ __forceinline__ void cp_async_16(void* shared, const void* global, bool valid) {
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;\n" ::"r"(shared_address(shared)), "l"(global),
               "r"(valid ? 16 : 0)
               : "memory");
}
__device__ __forceinline__ void cp_async_commit() { asm volatile("cp.async.commit_group;\n" ::: "memory"); }
template <int groups_left>
__device__ __forceinline__ void cp_async_wait() {
  asm volatile("cp.async.wait_group %0;\n" ::"n"(groups_left) : "memory");
}

__device__ __forceinline__ float exp2_approximate(float x) {
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;\n" : "=f"(result) : "f"(x));
  return result;
}

#endif

}  // namespace cuda
}  // namespace parley
