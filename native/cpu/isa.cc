#include "cpu/isa.h"

#include "base/check.h"
#include "cpu/kernels/kernels.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(PARLEY_AMX) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace parley {
namespace {

#if defined(__x86_64__)
// F16C came with Ivy Bridge; older compilers' __builtin_cpu_supports does not know its name.
bool has_f16c() {
  unsigned eax, ebx, ecx, edx;
  return __get_cpuid(1, &eax, &ebx, &ecx, &edx) && (ecx & bit_F16C);
}

// __builtin_cpu_supports also asks whether the operating system saves the wide registers.
bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c(); }

bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}

// The tiles' registers are saved for those who asked the system to (Linux 5.16 and up); asked once, it holds for the whole process.
bool has_amx() {
#if defined(PARLEY_AMX) && defined(__linux__)
  constexpr long kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM of asm/prctl.h
  constexpr long kTileData = 18;
  unsigned eax, ebx, ecx, edx;
  constexpr unsigned kTiles = 1u << 24 | 1u << 22;  // AMX-TILE, AMX-BF16
  if (!has_avx512() || !__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) || (edx & kTiles) != kTiles) return false;
  if (!__get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) || !(eax & 1u << 5)) return false;  // AVX512-BF16
  static const bool granted = syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
  return granted;
#else
  return false;
#endif
}
#endif

}  // namespace

bool has_isa(Isa isa) {
#if defined(__x86_64__)
  if (isa == Isa::avx2) return has_avx2();
  if (isa == Isa::avx512) return has_avx512();
  if (isa == Isa::amx) return has_amx();
#elif defined(__aarch64__)
  if (isa == Isa::neon) return true;  // every such processor has it
#endif
  return isa == Isa::baseline;
}

Isa best_isa(DType dtype) {
  if (dtype == DType::bfloat16 && has_isa(Isa::amx)) return Isa::amx;
  for (const Isa isa : {Isa::avx512, Isa::avx2, Isa::neon}) {
    if (has_isa(isa)) return isa;
  }
  return Isa::baseline;
}

const char* isa_name(Isa isa) {
  switch (isa) {
    case Isa::auto_: return "auto_";
    case Isa::neon: return "neon";
    case Isa::avx2: return "avx2";
    case Isa::avx512: return "avx512";
    case Isa::amx: return "amx";
    default: return "baseline";
  }
}

const Kernels& kernels_for(Isa isa) {
  if (isa == Isa::auto_) isa = best_isa(DType::float32);
  check(has_isa(isa), "this machine has no ", isa_name(isa), " instructions");
#if defined(__x86_64__)
#if defined(PARLEY_AMX)
  if (isa == Isa::amx) return amx::kKernels;
#endif
  if (isa == Isa::avx512) return avx512::kKernels;
  if (isa == Isa::avx2) return avx2::kKernels;
#elif defined(__aarch64__)
  if (isa == Isa::neon) return neon::kKernels;
#endif
  return baseline::kKernels;
}

}  // namespace parley
