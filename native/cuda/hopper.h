// What compute capability 9.0 has of its own: copies of whole tiles by the tensor memory accelerator (TMA), barriers in shared memory that
// count their bytes, and the multiplication of a warpgroup (wgmma): four warps, the first of them a multiple of four. Kernels that use it
// run where runs_hopper_kernels() says so; in code for other GPUs these functions trap.
//
// A tile is `box_rows` rows of 64 16-bit numbers, 128 bytes, at a multiple of 1,024 bytes in shared memory. It lies there as TMA's and wgmma's
// 128-byte swizzle has it: piece p of 16 bytes of row r at piece p ^ (r % 8). Layouts: PTX manual, "Asynchronous Warpgroup Level Matrix
// Instructions" and "Tensors".
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <type_traits>

#include "base/dtype.h"

#ifdef PARLEY_CUDA_EMULATED
#include "emulated_hopper.h"
#else
#include <cuda.h>
#endif

namespace parley {
namespace cuda {

// Shared memory that a block may have, static and dynamic.
constexpr int64_t kMaxHopperSharedBytes = 227 * 1024;

// Whether the current device runs these kernels, and this library was built for it.
bool runs_hopper_kernels();

// Boxes of box_rows <= 256 rows of 64 numbers of a row-major matrix [rows, pitch] of a 16-bit type, which starts at a multiple of 16 bytes; pitch is a
// multiple of 8, at least 64. Rows and columns behind the last one are read as zeros. A kernel's parameter `const __grid_constant__ CUtensorMap`.
CUtensorMap tensor_map(const void* data, DType dtype, int64_t rows, int64_t pitch, int box_rows);

// A barrier's phase is over when so many have arrived and all bytes that were expected have come; the next phase then begins by itself. One
// thread initializes; barrier_init_fence and __syncthreads before anybody else uses it.
__device__ __forceinline__ void barrier_init(uint64_t* barrier, int arrivals);
__device__ __forceinline__ void barrier_init_fence();
__device__ __forceinline__ void barrier_arrive(uint64_t* barrier);
// Arrives, and makes the phase wait for `bytes` more.
__device__ __forceinline__ void barrier_expect(uint64_t* barrier, uint32_t bytes);
// Until the phase of this parity is over: 0 is the first phase's, and that "before" the first phase has parity 1.
__device__ __forceinline__ void barrier_wait(uint64_t* barrier, uint32_t parity);

// __syncthreads of those `threads`, a multiple of 32, that call it with this id, 1 .. 15.
__device__ __forceinline__ void sync_group(int id, int threads);

// Copies the box of `map` that begins at this column and row to the tile `shared`. Called by one thread; the bytes count at `barrier`, all of the
// box, those outside of the matrix too. kOnce: of what is read once, nothing is to stay in the cache.
template <bool kOnce = false>
__device__ __forceinline__ void tensor_load(void* shared, const CUtensorMap& map, int32_t col, int32_t row, uint64_t* barrier);
// Before the first load with a map.
__device__ __forceinline__ void tensor_prefetch(const CUtensorMap& map);

// What this thread has stored in shared memory can be read by wgmma and TMA, after a barrier behind it.
__device__ __forceinline__ void async_proxy_fence();

// Of a tile, as wgmma_k16 takes it; + 2 for each 16 columns further.
__device__ __forceinline__ uint64_t wgmma_descriptor(const void* tile);
// Of a matrix B [columns of the product, k] that lies turned, a tile's rows being k; + 128 for each 16 rows further. Behind the tile of 64 columns of the
// product come those of the next, every tile_bytes.
__device__ __forceinline__ uint64_t wgmma_turned_descriptor(const void* tile, int tile_bytes);

// Before the first wgmma_k16, and wherever registers of `d` were written otherwise.
__device__ __forceinline__ void wgmma_fence();
// Closes a group: the multiplications since the last one.
__device__ __forceinline__ void wgmma_commit();
// Waits until at most `groups_left` of the newest groups are under way. Tiles and sums of the others are free.
template <int groups_left>
__device__ __forceinline__ void wgmma_wait();
// Behind a wait: no use of the sums is moved before it. Before a fence: nothing that makes the sums or A's registers is moved behind it.
template <int n>
__device__ __forceinline__ void wgmma_use(float (&d)[n]);
template <int n>
__device__ __forceinline__ void wgmma_use(uint32_t (&a)[n]);

// d += A B^T, or d = A B^T without `add`, in float32: A 64 rows, B kCols rows, of 16 columns. kCols is 8, 16, 32, 64, 128 or 256. Runs on after the call. All
// 128 threads of the warpgroup call it. Of thread t, with warp = t / 32 % 4, group = t % 32 / 4 and pair = t % 4:
//
//   d[4 j + 0], d[4 j + 1] = D[16 warp + group, 8 j + 2 pair + {0, 1}]      d[4 j + 2], d[4 j + 3] = the same of row + 8
template <class Number, int kCols>
__device__ __forceinline__ void wgmma_k16(float (&d)[kCols / 2], uint64_t a, uint64_t b, bool add = true);
// The same with A in registers, which must stay as they are until the multiplication is done: those of each warp hold its 16 rows as mma_m16n8k16 has them
// (mma.h). kTurned: b is a wgmma_turned_descriptor. kCols is 64, 80, 96 or 128.
template <class Number, int kCols, bool kTurned>
__device__ __forceinline__ void wgmma_k16(float (&d)[kCols / 2], const uint32_t (&a)[4], uint64_t b, bool add = true);

// The warpgroup's threads may use so many registers from now on; a multiple of 8. What some give up, others can have.
template <int count>
__device__ __forceinline__ void give_up_registers();
template <int count>
__device__ __forceinline__ void take_registers();

#ifdef PARLEY_CUDA_EMULATED

inline void barrier_init(uint64_t* barrier, int arrivals) { emulator::barrier_init(barrier, arrivals); }
inline void barrier_init_fence() {}
inline void barrier_arrive(uint64_t* barrier) { emulator::barrier_arrive(barrier, 0); }
inline void barrier_expect(uint64_t* barrier, uint32_t bytes) { emulator::barrier_arrive(barrier, bytes); }
inline void barrier_wait(uint64_t* barrier, uint32_t parity) { emulator::barrier_wait(barrier, parity); }
inline void sync_group(int id, int threads) { emulator::sync_group(id, threads); }
template <bool kOnce>
void tensor_load(void* shared, const CUtensorMap& map, int32_t col, int32_t row, uint64_t* barrier) {
  emulator::tensor_load(shared, map, col, row, barrier);
}
inline void tensor_prefetch(const CUtensorMap&) {}
inline void async_proxy_fence() {}
inline uint64_t wgmma_descriptor(const void* tile) { return emulator::wgmma_descriptor(tile); }
inline uint64_t wgmma_turned_descriptor(const void* tile, int tile_bytes) { return emulator::wgmma_turned_descriptor(tile, tile_bytes); }
inline void wgmma_fence() {}
inline void wgmma_commit() { emulator::commit_wgmma(); }
template <int groups_left>
void wgmma_wait() {
  emulator::wait_for_wgmma(groups_left);
}
template <int n>
void wgmma_use(float (&)[n]) {}
template <int n>
void wgmma_use(uint32_t (&)[n]) {}
template <class Number, int kCols>
void wgmma_k16(float (&d)[kCols / 2], uint64_t a, uint64_t b, bool add) {
  emulator::multiply_k16<Number>(d, kCols, a, b, add);
}
template <class Number, int kCols, bool kTurned>
void wgmma_k16(float (&d)[kCols / 2], const uint32_t (&a)[4], uint64_t b, bool add) {
  emulator::multiply_k16<Number, kTurned>(d, kCols, a, b, add);
}
template <int count>
void give_up_registers() {}
template <int count>
void take_registers() {}

#else

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
#define PARLEY_HOPPER(...) asm volatile(__VA_ARGS__)
#else
#define PARLEY_HOPPER(...) __trap()
#endif

__device__ __forceinline__ uint32_t shared_window(const void* shared) { return static_cast<uint32_t>(__cvta_generic_to_shared(shared)); }

__device__ __forceinline__ void barrier_init(uint64_t* barrier, int arrivals) {
  PARLEY_HOPPER("mbarrier.init.shared::cta.b64 [%0], %1;\n" ::"r"(shared_window(barrier)), "r"(arrivals) : "memory");
}
__device__ __forceinline__ void barrier_init_fence() { PARLEY_HOPPER("fence.mbarrier_init.release.cluster;\n" ::: "memory"); }
__device__ __forceinline__ void barrier_arrive(uint64_t* barrier) {
  PARLEY_HOPPER("mbarrier.arrive.shared::cta.b64 _, [%0];\n" ::"r"(shared_window(barrier)) : "memory");
}
__device__ __forceinline__ void barrier_expect(uint64_t* barrier, uint32_t bytes) {
  PARLEY_HOPPER("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;\n" ::"r"(shared_window(barrier)), "r"(bytes) : "memory");
}
__device__ __forceinline__ void barrier_wait(uint64_t* barrier, uint32_t parity) {
  PARLEY_HOPPER(
      "{\n"
      ".reg .pred over;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 over, [%0], %1;\n"
      "@!over bra again;\n"
      "}\n" ::"r"(shared_window(barrier)),
      "r"(parity)
      : "memory");
}
__device__ __forceinline__ void sync_group(int id, int threads) { PARLEY_HOPPER("bar.sync %0, %1;\n" ::"r"(id), "r"(threads) : "memory"); }

template <bool kOnce>
__device__ __forceinline__ void tensor_load(void* shared, const CUtensorMap& map, int32_t col, int32_t row, uint64_t* barrier) {
  if constexpr (kOnce) {
    PARLEY_HOPPER(
        "{\n"
        ".reg .b64 policy;\n"
        "createpolicy.fractional.L2::evict_first.b64 policy, 1.0;\n"
        "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1, {%2, %3}], [%4], policy;\n"
        "}\n" ::"r"(shared_window(shared)),
        "l"(&map), "r"(col), "r"(row), "r"(shared_window(barrier))
        : "memory");
  } else {
    PARLEY_HOPPER("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];\n" ::"r"(
                      shared_window(shared)),
                  "l"(&map), "r"(col), "r"(row), "r"(shared_window(barrier))
                  : "memory");
  }
}
__device__ __forceinline__ void tensor_prefetch(const CUtensorMap& map) { PARLEY_HOPPER("prefetch.tensormap [%0];\n" ::"l"(&map) : "memory"); }

__device__ __forceinline__ void async_proxy_fence() { PARLEY_HOPPER("fence.proxy.async.shared::cta;\n" ::: "memory"); }

// Address / 16; from bit 32 on the bytes / 16 from 8 rows to the next 8; bit 62: the 128-byte swizzle.
__device__ __forceinline__ uint64_t wgmma_descriptor(const void* tile) {
  return uint64_t{1} << 62 | uint64_t{1024 / 16} << 32 | uint64_t{1} << 16 | (shared_window(tile) >> 4 & 0x3fff);
}
// The bytes / 16 from 64 columns of the product to the next 64 stand from bit 16 on, those from 8 of k to the next 8 from bit 32 on.
__device__ __forceinline__ uint64_t wgmma_turned_descriptor(const void* tile, int tile_bytes) {
  return uint64_t{1} << 62 | uint64_t{1024 / 16} << 32 | static_cast<uint64_t>(tile_bytes / 16) << 16 | (shared_window(tile) >> 4 & 0x3fff);
}

__device__ __forceinline__ void wgmma_fence() { PARLEY_HOPPER("wgmma.fence.sync.aligned;\n" ::: "memory"); }
__device__ __forceinline__ void wgmma_commit() { PARLEY_HOPPER("wgmma.commit_group.sync.aligned;\n" ::: "memory"); }
template <int groups_left>
__device__ __forceinline__ void wgmma_wait() {
  PARLEY_HOPPER("wgmma.wait_group.sync.aligned %0;\n" ::"n"(groups_left) : "memory");
}
template <int n>
__device__ __forceinline__ void wgmma_use(float (&d)[n]) {
#pragma unroll
  for (int i = 0; i < n; ++i) asm volatile("" : "+f"(d[i])::"memory");
}
template <int n>
__device__ __forceinline__ void wgmma_use(uint32_t (&a)[n]) {
#pragma unroll
  for (int i = 0; i < n; ++i) asm volatile("" : "+r"(a[i])::"memory");
}

// The names of so many registers, and the registers.
#define PARLEY_NAMES_4 "%0, %1, %2, %3"
#define PARLEY_NAMES_8 PARLEY_NAMES_4 ", %4, %5, %6, %7"
#define PARLEY_NAMES_16 PARLEY_NAMES_8 ", %8, %9, %10, %11, %12, %13, %14, %15"
#define PARLEY_NAMES_32 PARLEY_NAMES_16 ", %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define PARLEY_NAMES_40 PARLEY_NAMES_32 ", %32, %33, %34, %35, %36, %37, %38, %39"
#define PARLEY_NAMES_48 PARLEY_NAMES_40 ", %40, %41, %42, %43, %44, %45, %46, %47"
#define PARLEY_NAMES_64                                                                                                            \
  PARLEY_NAMES_32                                                                                                                  \
  ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57" \
  ", %58, %59, %60, %61, %62, %63"
#define PARLEY_NAMES_128                                                                                                              \
  PARLEY_NAMES_64                                                                                                                     \
  ", %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, %80, %81, %82, %83, %84, %85, %86, %87, %88, %89" \
  ", %90, %91, %92, %93, %94, %95, %96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, %112"  \
  ", %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
#define PARLEY_REGISTERS_4(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define PARLEY_REGISTERS_8(i) PARLEY_REGISTERS_4(i), PARLEY_REGISTERS_4(i + 4)
#define PARLEY_REGISTERS_16(i) PARLEY_REGISTERS_8(i), PARLEY_REGISTERS_8(i + 8)
#define PARLEY_REGISTERS_32(i) PARLEY_REGISTERS_16(i), PARLEY_REGISTERS_16(i + 16)
#define PARLEY_REGISTERS_40(i) PARLEY_REGISTERS_32(i), PARLEY_REGISTERS_8(i + 32)
#define PARLEY_REGISTERS_48(i) PARLEY_REGISTERS_32(i), PARLEY_REGISTERS_16(i + 32)
#define PARLEY_REGISTERS_64(i) PARLEY_REGISTERS_32(i), PARLEY_REGISTERS_32(i + 32)
#define PARLEY_REGISTERS_128(i) PARLEY_REGISTERS_64(i), PARLEY_REGISTERS_64(i + 64)
// first, second, third: the numbers of the operands behind `count` registers.
#define PARLEY_WGMMA(cols, type, count, first, second, third)                                                             \
  PARLEY_HOPPER(                                                                                                          \
      "{\n"                                                                                                               \
      ".reg .pred add;\n"                                                                                                 \
      "setp.ne.b32 add, %" #third ", 0;\n"                                                                                \
      "wgmma.mma_async.sync.aligned.m64n" #cols "k16.f32." type "." type " {" PARLEY_NAMES_##count "}, %" #first ", %" #second \
      ", add, 1, 1, 0, 0;\n"                                                                                              \
      "}\n"                                                                                                               \
      : PARLEY_REGISTERS_##count(0)                                                                                       \
      : "l"(a), "l"(b), "r"(static_cast<int>(add)))
#define PARLEY_WGMMA_OF_TYPE(type)                                              \
  if constexpr (kCols == 8) PARLEY_WGMMA(8, type, 4, 4, 5, 6);                  \
  if constexpr (kCols == 16) PARLEY_WGMMA(16, type, 8, 8, 9, 10);               \
  if constexpr (kCols == 32) PARLEY_WGMMA(32, type, 16, 16, 17, 18);            \
  if constexpr (kCols == 64) PARLEY_WGMMA(64, type, 32, 32, 33, 34);            \
  if constexpr (kCols == 128) PARLEY_WGMMA(128, type, 64, 64, 65, 66);          \
  if constexpr (kCols == 256) PARLEY_WGMMA(256, type, 128, 128, 129, 130)

template <class Number, int kCols>
__device__ __forceinline__ void wgmma_k16(float (&d)[kCols / 2], uint64_t a, uint64_t b, bool add) {
  static_assert(kCols == 8 || kCols == 16 || kCols == 32 || kCols == 64 || kCols == 128 || kCols == 256, "");
  if constexpr (std::is_same<Number, __half>::value) {
    PARLEY_WGMMA_OF_TYPE("f16");
  } else {
    PARLEY_WGMMA_OF_TYPE("bf16");
  }
}

// a0 .. a3, right, added, turned: the numbers of the operands behind `count` registers.
#define PARLEY_WGMMA_A(cols, type, count, a0, a1, a2, a3, right, added, turned)                                                               \
  PARLEY_HOPPER(                                                                                                                             \
      "{\n"                                                                                                                                  \
      ".reg .pred add;\n"                                                                                                                    \
      "setp.ne.b32 add, %" #added ", 0;\n"                                                                                                   \
      "wgmma.mma_async.sync.aligned.m64n" #cols "k16.f32." type "." type " {" PARLEY_NAMES_##count "}, {%" #a0 ", %" #a1 ", %" #a2 ", %" #a3 \
      "}, %" #right ", add, 1, 1, %" #turned ";\n"                                                                                           \
      "}\n"                                                                                                                                  \
      : PARLEY_REGISTERS_##count(0)                                                                                                          \
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(static_cast<int>(add)), "n"(kTurned ? 1 : 0))
#define PARLEY_WGMMA_A_OF_TYPE(type)                                                            \
  if constexpr (kCols == 64) PARLEY_WGMMA_A(64, type, 32, 32, 33, 34, 35, 36, 37, 38);          \
  if constexpr (kCols == 80) PARLEY_WGMMA_A(80, type, 40, 40, 41, 42, 43, 44, 45, 46);          \
  if constexpr (kCols == 96) PARLEY_WGMMA_A(96, type, 48, 48, 49, 50, 51, 52, 53, 54);          \
  if constexpr (kCols == 128) PARLEY_WGMMA_A(128, type, 64, 64, 65, 66, 67, 68, 69, 70)

template <class Number, int kCols, bool kTurned>
__device__ __forceinline__ void wgmma_k16(float (&d)[kCols / 2], const uint32_t (&a)[4], uint64_t b, bool add) {
  static_assert(kCols == 64 || kCols == 80 || kCols == 96 || kCols == 128, "");
  if constexpr (std::is_same<Number, __half>::value) {
    PARLEY_WGMMA_A_OF_TYPE("f16");
  } else {
    PARLEY_WGMMA_A_OF_TYPE("bf16");
  }
}

template <int count>
__device__ __forceinline__ void give_up_registers() {
  PARLEY_HOPPER("setmaxnreg.dec.sync.aligned.u32 %0;\n" ::"n"(count));
}
template <int count>
__device__ __forceinline__ void take_registers() {
  PARLEY_HOPPER("setmaxnreg.inc.sync.aligned.u32 %0;\n" ::"n"(count));
}

#undef PARLEY_WGMMA_OF_TYPE
#undef PARLEY_WGMMA
#undef PARLEY_WGMMA_A_OF_TYPE
#undef PARLEY_WGMMA_A

#endif

}  // namespace cuda
}  // namespace parley
