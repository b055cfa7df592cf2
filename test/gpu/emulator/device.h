// The device language of CUDA as plain C++: what a kernel may use is declared here, and nothing else compiles. See README.md.
//
// A kernel runs one block after the other. A block's threads are fibers of one OS thread, each of which runs until it waits: for the
// block (__syncthreads) or for lanes of its warp (shuffles, votes, ldmatrix, mma). When the last one comes, it does the work for all.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#define __global__
#define __device__
#define __host__
#define __shared__ static thread_local  // one copy for all fibers of the OS thread that runs the block
#define __forceinline__ inline
#define __noinline__  // also within __attribute__(()) of library headers, where nothing is as well
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(n) alignas(n)

struct alignas(8) float2 { float x, y; };
struct float3 { float x, y, z; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(8) int2 { int x, y; };
struct alignas(16) int4 { int x, y, z, w; };
struct alignas(8) uint2 { unsigned x, y; };
struct uint3 { unsigned x, y, z; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct alignas(16) double2 { double x, y; };
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

inline float2 make_float2(float x, float y) { return {x, y}; }
inline float3 make_float3(float x, float y, float z) { return {x, y, z}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline int2 make_int2(int x, int y) { return {x, y}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline double2 make_double2(double x, double y) { return {x, y}; }

namespace emulator {

// __syncthreads() at a place in the source; all threads must come to the same one.
void sync_block(const char* file, int line);

// Waits for the lanes of `mask`; the last to come calls meet(lanes, participants) with what each brought, then all go on.
enum class Meeting { sync, shuffle, vote, match, reduce, ldmatrix, mma };
using Meet = void (*)(void* const lanes[32], uint32_t participants);
void meet(Meeting kind, uint32_t mask, void* mine, Meet work);

int lane();

// Shared memory of the block as the launch asked for it; fresh bytes are 0xff (NaN).
void* dynamic_shared();
bool is_shared(const void* at, int64_t bytes);

// cp.async: the copy happens no sooner than a wait asks for it, so that a missing wait shows.
void copy_async(void* shared, const void* global, int bytes, int valid_bytes);
void commit_copies();
void wait_for_copies(int groups_left);

// mbarrier: arrivals that are missing, and bytes. A load of TMA happens no sooner than somebody waits for its barrier; multiplications of a
// warpgroup, each thread's part, no sooner than the thread waits for them.
void barrier_init(uint64_t* barrier, int arrivals);
void barrier_arrive(uint64_t* barrier, uint32_t bytes);
void barrier_wait(uint64_t* barrier, uint32_t parity);
void sync_group(int id, int threads);
struct Load {
  char* tile;
  const char* rows;  // of the box, from its first column on
  int64_t row_bytes;
  int bytes;  // of a row's 128 that are there; zeros behind them
  int box_rows, there;  // rows behind those that are there are zeros
  uint64_t* barrier;
};
void start_load(const Load& load);
struct Wgmma {
  float* d;
  int cols;
  uint64_t a, b;
  bool add;
  void (*run)(const Wgmma& self, int thread);
  float left[2][16];  // the thread's rows of A, where that was in registers
};
void start_wgmma(const Wgmma& wgmma);
void commit_wgmma();
void wait_for_wgmma(int groups_left);

// Ends the kernel with cudaErrorLaunchFailure and this message.
[[noreturn]] void fault(const char* format, ...) __attribute__((format(printf, 1, 2)));

// Ends the block, which begins anew when other streams have had their turn: in place of a loop that waits for another GPU, of whose work
// none runs beside this block. What the block has done before is done again.
[[noreturn]] void try_later();

struct Shuffle {
  const void* in;
  void* out;
  int bytes;
  int source;
};
void meet_shuffle(void* const lanes[32], uint32_t participants);

template <class T>
T shuffle(uint32_t mask, T value, int source) {
  T result = value;
  Shuffle mine{&value, &result, sizeof(T), source};
  meet(Meeting::shuffle, mask, &mine, meet_shuffle);
  return result;
}

struct Vote {
  bool in;
  uint32_t out;
};
void meet_vote(void* const lanes[32], uint32_t participants);

template <class T>
struct Reduction {
  T in;
  T out;
};

template <class T, class Operation>
T reduce(uint32_t mask, T value, Operation) {
  Reduction<T> mine{value, value};
  meet(Meeting::reduce, mask, &mine, [](void* const lanes[32], uint32_t participants) {
    bool first = true;
    T total{};
    for (int i = 0; i < 32; ++i) {
      if (!(participants >> i & 1)) continue;
      const T in = static_cast<Reduction<T>*>(lanes[i])->in;
      total = first ? in : Operation()(total, in);
      first = false;
    }
    for (int i = 0; i < 32; ++i) {
      if (participants >> i & 1) static_cast<Reduction<T>*>(lanes[i])->out = total;
    }
  });
  return mine.out;
}

struct Plus { template <class T> T operator()(T a, T b) const { return a + b; } };
struct Least { template <class T> T operator()(T a, T b) const { return b < a ? b : a; } };
struct Most { template <class T> T operator()(T a, T b) const { return a < b ? b : a; } };
struct Or { template <class T> T operator()(T a, T b) const { return a | b; } };
struct And { template <class T> T operator()(T a, T b) const { return a & b; } };

}  // namespace emulator

// Of the thread that runs now.
extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
constexpr int warpSize = 32;

#define __syncthreads() ::emulator::sync_block(__FILE__, __LINE__)
inline void __syncwarp(uint32_t mask = 0xffffffffu) { emulator::meet(emulator::Meeting::sync, mask, nullptr, nullptr); }
inline void __threadfence_block() {}
inline void __threadfence() {}
inline void __threadfence_system() {}

template <class T>
T __shfl_sync(uint32_t mask, T value, int source, int width = 32) {
  return emulator::shuffle(mask, value, (emulator::lane() & ~(width - 1)) | (source & (width - 1)));
}
template <class T>
T __shfl_xor_sync(uint32_t mask, T value, int bits, int width = 32) {
  const int source = emulator::lane() ^ bits;
  return emulator::shuffle(mask, value, (source & ~(width - 1)) > (emulator::lane() & ~(width - 1)) ? emulator::lane() : source);
}
template <class T>
T __shfl_up_sync(uint32_t mask, T value, unsigned delta, int width = 32) {
  const int source = emulator::lane() - static_cast<int>(delta);
  return emulator::shuffle(mask, value, source < (emulator::lane() & ~(width - 1)) ? emulator::lane() : source);
}
template <class T>
T __shfl_down_sync(uint32_t mask, T value, unsigned delta, int width = 32) {
  const int source = emulator::lane() + static_cast<int>(delta);
  return emulator::shuffle(mask, value, source > (emulator::lane() | (width - 1)) ? emulator::lane() : source);
}
inline uint32_t __ballot_sync(uint32_t mask, bool predicate) {
  emulator::Vote mine{predicate, 0};
  emulator::meet(emulator::Meeting::vote, mask, &mine, emulator::meet_vote);
  return mine.out;
}
inline bool __any_sync(uint32_t mask, bool predicate) { return __ballot_sync(mask, predicate) != 0; }
inline bool __all_sync(uint32_t mask, bool predicate) { return __ballot_sync(mask, !predicate) == 0; }
inline int __reduce_add_sync(uint32_t mask, int value) { return emulator::reduce(mask, value, emulator::Plus()); }
inline unsigned __reduce_add_sync(uint32_t mask, unsigned value) { return emulator::reduce(mask, value, emulator::Plus()); }
inline int __reduce_max_sync(uint32_t mask, int value) { return emulator::reduce(mask, value, emulator::Most()); }
inline unsigned __reduce_max_sync(uint32_t mask, unsigned value) { return emulator::reduce(mask, value, emulator::Most()); }
inline int __reduce_min_sync(uint32_t mask, int value) { return emulator::reduce(mask, value, emulator::Least()); }
inline unsigned __reduce_min_sync(uint32_t mask, unsigned value) { return emulator::reduce(mask, value, emulator::Least()); }
inline unsigned __reduce_or_sync(uint32_t mask, unsigned value) { return emulator::reduce(mask, value, emulator::Or()); }
inline unsigned __reduce_and_sync(uint32_t mask, unsigned value) { return emulator::reduce(mask, value, emulator::And()); }

// Blocks do not run side by side, so atomics are plain.
#define EMULATED_ATOMIC(name, expression)   \
  template <class T>                        \
  T name(T* at, T value) {                  \
    const T old = *at;                      \
    *at = (expression);                     \
    return old;                             \
  }
EMULATED_ATOMIC(atomicAdd, old + value)
EMULATED_ATOMIC(atomicSub, old - value)
EMULATED_ATOMIC(atomicMax, old < value ? value : old)
EMULATED_ATOMIC(atomicMin, value < old ? value : old)
EMULATED_ATOMIC(atomicExch, value)
EMULATED_ATOMIC(atomicOr, old | value)
EMULATED_ATOMIC(atomicAnd, old & value)
#undef EMULATED_ATOMIC
template <class T>
T atomicCAS(T* at, T expected, T value) {
  const T old = *at;
  if (old == expected) *at = value;
  return old;
}

template <class T> T __ldg(const T* at) { return *at; }
template <class T> T __ldcg(const T* at) { return *at; }
template <class T> T __ldcs(const T* at) { return *at; }
template <class T> void __stcg(T* at, T value) { *at = value; }
template <class T> void __stcs(T* at, T value) { *at = value; }

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(static_cast<unsigned>(x)); }
inline int __clzll(long long x) { return x == 0 ? 64 : __builtin_clzll(static_cast<unsigned long long>(x)); }

namespace emulator {
template <class To, class From>
To bits_as(From from) {
  static_assert(sizeof(To) == sizeof(From), "");
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}
}  // namespace emulator
inline unsigned __float_as_uint(float x) { return emulator::bits_as<unsigned>(x); }
inline int __float_as_int(float x) { return emulator::bits_as<int>(x); }
inline float __uint_as_float(unsigned x) { return emulator::bits_as<float>(x); }
inline float __int_as_float(int x) { return emulator::bits_as<float>(x); }

inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fsqrt_rn(float a) { return std::sqrt(a); }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dmul_rn(double a, double b) { return a * b; }
// Approximations on a GPU; exact here.
inline float __fdividef(float a, float b) { return a / b; }
inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }
inline float __log2f(float x) { return std::log2(x); }
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }

#define EMULATED_MIN_MAX(T)                         \
  inline T min(T a, T b) { return b < a ? b : a; }  \
  inline T max(T a, T b) { return a < b ? b : a; }
EMULATED_MIN_MAX(int)
EMULATED_MIN_MAX(unsigned)
EMULATED_MIN_MAX(long)
EMULATED_MIN_MAX(unsigned long)
EMULATED_MIN_MAX(long long)
EMULATED_MIN_MAX(unsigned long long)
#undef EMULATED_MIN_MAX
inline float min(float a, float b) { return std::fmin(a, b); }
inline float max(float a, float b) { return std::fmax(a, b); }
inline double min(double a, double b) { return std::fmin(a, b); }
inline double max(double a, double b) { return std::fmax(a, b); }
