// Exponential and the error function's relatives, on vectors.
#pragma once

namespace parley {
namespace PARLEY_ISA {
namespace {

// e^x within about 1 ulp: x = n ln 2 + r with |r| <= ln 2 / 2, e^r by a polynomial (relative error 3e-9 before rounding), times
// 2^n. 0 below about -104, infinity above 88.7, NaN stays NaN.
PARLEY_INLINE Vec exp(Vec x) {
  const Vec clamped = min(max(broadcast(-110.0f), x), broadcast(100.0f));  // max gives x if x is NaN; min then gives 100
  const Vec n = round(clamped * broadcast(0x1.715476p+0f));
  const Vec r = fma(n, broadcast(-0x1.7f7d1cp-20f), fma(n, broadcast(-0x1.62e4p-1f), clamped));
  Vec p = broadcast(0.0013814627891406417f);
  p = fma(p, r, broadcast(0.008368710055947304f));
  p = fma(p, r, broadcast(0.04166838526725769f));
  p = fma(p, r, broadcast(0.1666652113199234f));
  p = fma(p, r, broadcast(0.4999999403953552f));
  p = fma(p * r, r, r) + broadcast(1.0f);
  return select(equal(x, x), scale(p, n), x);
}

// 1 - 2 / (e^(2x) + 1): within 2^-23 of the truth everywhere, which near 0 is not a small relative error.
PARLEY_INLINE Vec tanh(Vec x) { return broadcast(1.0f) - broadcast(2.0f) / (exp(x + x) + broadcast(1.0f)); }

// The normal distribution's upper tail Q(t) = erfc(t / sqrt 2) / 2 for t >= 0: e^(-t^2/2) u P(u) with u = 1 / (1 + 0.21 t).
// P fitted to Q's scaled form on [0, 14] by weighted least squares; relative error 1.7e-8 before rounding.
PARLEY_INLINE Vec normal_tail(Vec t) {
  const Vec u = broadcast(1.0f) / fma(t, broadcast(0.21f), broadcast(1.0f));
  Vec p = broadcast(-0.07165667367506845f);
  p = fma(p, u, broadcast(0.2835904901494912f));
  p = fma(p, u, broadcast(-0.33025760306354274f));
  p = fma(p, u, broadcast(0.34940605641066214f));
  p = fma(p, u, broadcast(-0.09392881959369886f));
  p = fma(p, u, broadcast(0.12487431479244313f));
  p = fma(p, u, broadcast(0.06919175147302317f));
  p = fma(p, u, broadcast(0.08506891858674984f));
  p = fma(p, u, broadcast(0.08371157195789825f));
  return p * u * exp(t * t * broadcast(-0.5f));
}

}  // namespace
}  // namespace PARLEY_ISA
}  // namespace parley
