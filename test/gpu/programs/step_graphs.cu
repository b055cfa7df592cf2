// Graphs of decode steps: which shapes are recorded, and that a replay computes with the numbers of now.
#include <cstdio>
#include <string>

#include "cuda/launch.h"
#include "cuda/step_graphs.h"

namespace {

using parley::StepShape;
using parley::check;
using parley::cuda::launch;
using parley::cuda::padded_shape;
using parley::cuda::StepGraphs;

int failures = 0;
void expect(bool condition, const char* what) {
  if (condition) return;
  std::printf("step_graphs: FAILED: %s\n", what);
  ++failures;
}

__global__ void add_one(float* x) { *x += 1; }

float read(const float* x, cudaStream_t stream) {
  float value = 0;
  check(cudaMemcpyAsync(&value, x, sizeof value, cudaMemcpyDeviceToHost, stream), "download");
  check(cudaStreamSynchronize(stream), "wait");
  return value;
}

void test_shapes() {
  for (int64_t rows = 1; rows <= 512; ++rows) {
    const StepShape shape = padded_shape({rows, rows, 0});
    expect(shape.rows >= rows && (rows <= 8 ? shape.rows < 2 * rows : shape.rows < rows + (rows <= 64 ? 8 : 16)), "rows");
    expect(shape.max_pages >= rows && (shape.max_pages == 16 || shape.max_pages < 2 * rows), "pages");
    expect(shape.max_encoder_pages == 0, "no encoder's pages");
    const StepShape again = padded_shape(shape);
    expect(again.rows == shape.rows && again.max_pages == shape.max_pages, "a padded shape is padded");
  }
  expect(padded_shape({1, 1, 17}).max_encoder_pages == 32, "an encoder's pages");
}

void test_graphs() {
  cudaStream_t stream;
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "stream");
  float* x;
  check(cudaMalloc(&x, sizeof *x), "memory");
  check(cudaMemsetAsync(x, 0, sizeof *x, stream), "memory set to 0");
  {
    StepGraphs graphs(stream);
    int calls = 0;
    const auto ops = [&] {
      ++calls;
      launch(add_one, dim3(1), dim3(1), 0, stream, x);
    };
    for (int step = 1; step <= 5; ++step) {
      graphs.run({2, 16, 0}, 100, ops);
      expect(read(x, stream) == static_cast<float>(step), "every step is computed");
      expect(calls == (step == 1 ? 1 : 2), "the ops are called once, and once to be recorded");
    }
    graphs.run({4, 16, 0}, 100, ops);
    expect(calls == 3 && graphs.num_graphs() == 1, "another shape begins for itself");

    graphs.run({2, 16, 0}, 200, ops);
    expect(calls == 4 && graphs.num_graphs() == 0, "when the ops' memory has moved, all is forgotten");

    bool thrown = false;
    try {
      graphs.run({2, 16, 0}, 200, [] { throw parley::Error("no"); });
    } catch (const parley::Error&) {
      thrown = true;
    }
    expect(thrown, "a failure while recording comes through");
    graphs.run({2, 16, 0}, 200, ops);
    graphs.run({2, 16, 0}, 200, ops);
    expect(calls == 5 && graphs.num_graphs() == 1 && read(x, stream) == 9, "and the next step is recorded and computed");
  }
  check(cudaFree(x), "memory");
  check(cudaStreamDestroy(stream), "stream");
}

}  // namespace

int main() {
  try {
    test_shapes();
    test_graphs();
  } catch (const parley::Error& error) {
    std::printf("step_graphs: %s\n", error.what());
    return 1;
  }
  if (failures == 0) std::printf("step_graphs: ok\n");
  return failures == 0 ? 0 : 1;
}
