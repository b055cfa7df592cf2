// The activations, and what `linear` does with a finished sum.
#pragma once

#include <cuda_runtime.h>

#include "cuda/numbers.h"
#include "ops/types.h"

namespace parley {
namespace cuda {

// x Phi(x) = x erfc(-x / sqrt 2) / 2, exact
__device__ inline float gelu(float x) { return 0.5f * x * erfcf(-0.70710678f * x); }

// 0.5 x (1 + tanh u) = x / (1 + e^(-2u)) with u = sqrt(2 / pi) (x + 0.044715 x^3)
__device__ inline float gelu_tanh(float x) {
  const float u = x * fmaf(x * x, 0.044715f * 0.7978845608f, 0.7978845608f);
  return x / (1.0f + expf(-2.0f * u));
}

// x sigmoid(x)
__device__ inline float silu(float x) { return x / (1.0f + expf(-x)); }

__device__ inline float relu(float x) { return x < 0.0f ? 0.0f : x; }  // NaN stays NaN

__device__ inline float activate(float x, Activation activation) {
  switch (activation) {
    case Activation::gelu: return gelu(x);
    case Activation::gelu_tanh: return gelu_tanh(x);
    case Activation::relu: return relu(x);
    default: return silu(x);
  }
}

// y = activation(y), all numbers side by side; y itself of other epilogues
template <int n>
__device__ inline void activate_all(float (&y)[n], Epilogue epilogue) {
  const auto each = [&](auto function) {
#pragma unroll
    for (float& number : y) number = function(number);
  };
  switch (epilogue) {
    case Epilogue::gelu: return each([](float x) { return gelu(x); });
    case Epilogue::gelu_tanh: return each([](float x) { return gelu_tanh(x); });
    case Epilogue::relu: return each([](float x) { return relu(x); });
    case Epilogue::silu: return each([](float x) { return silu(x); });
    default: return;
  }
}

// Number `index` of out becomes y, activation(y) or itself + y; `rounds`: out is of type T, not float32, and the epilogue an activation.
template <class T>
__device__ inline void finish(void* out, bool rounds, int64_t index, float y, Epilogue epilogue) {
  float* floats = static_cast<float*>(out);
  switch (epilogue) {
    case Epilogue::gelu: y = gelu(y); break;
    case Epilogue::gelu_tanh: y = gelu_tanh(y); break;
    case Epilogue::relu: y = relu(y); break;
    case Epilogue::silu: y = silu(y); break;
    case Epilogue::accumulate: y += floats[index]; break;
    case Epilogue::store: break;
  }
  if (rounds) {
    static_cast<T*>(out)[index] = from_float<T>(y);
  } else {
    floats[index] = y;
  }
}

}  // namespace cuda
}  // namespace parley
