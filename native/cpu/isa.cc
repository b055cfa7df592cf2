#include "cpu/isa.h"

#include "base/check.h"
#include "cpu/kernels/kernels.h"

#if defined(__x86_64__)
#include <cpuid.h>
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
#endif

}  // namespace

bool has_isa(Isa isa) {
#if defined(__x86_64__)
  if (isa == Isa::avx2) return has_avx2();
  if (isa == Isa::avx512) return has_avx512();
#endif
  return isa == Isa::baseline;
}

Isa best_isa() { return has_isa(Isa::avx512) ? Isa::avx512 : has_isa(Isa::avx2) ? Isa::avx2 : Isa::baseline; }

const char* isa_name(Isa isa) {
  switch (isa) {
    case Isa::auto_: return "auto_";
    case Isa::avx2: return "avx2";
    case Isa::avx512: return "avx512";
    default: return "baseline";
  }
}

const Kernels& kernels_for(Isa isa) {
  if (isa == Isa::auto_) isa = best_isa();
  check(has_isa(isa), "this machine has no ", isa_name(isa), " instructions");
#if defined(__x86_64__)
  if (isa == Isa::avx512) return avx512::kKernels;
  if (isa == Isa::avx2) return avx2::kKernels;
#endif
  return baseline::kKernels;
}

}  // namespace parley
