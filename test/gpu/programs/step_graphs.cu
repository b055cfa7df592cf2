// Graphs of decode steps: which shapes are recorded, and that a replay computes with the numbers of now.
#include <chrono>
#include <cstdio>
#include <string>
#include <thread>

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
  int calls = 0;
  const auto ops = [&] {
    ++calls;
    launch(add_one, dim3(1), dim3(1), 0, stream, x);
  };
  float expected = 0;
  {
    StepGraphs graphs(0, stream);
    const auto step = [&](const StepShape& shape, int64_t held_bytes) {
      graphs.run(shape, held_bytes, ops);
      expect(read(x, stream) == ++expected, "every step is computed once");
    };
    const auto wait_for_graphs = [&](int64_t count) {
      while (graphs.num_graphs() < count) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    };
    step({2, 16, 0}, 100);
    expect(calls == 1, "a first step runs as it is");
    step({2, 16, 0}, 100);
    expect(calls == 3, "a second one too, and is recorded then");
    wait_for_graphs(1);
    for (int i = 0; i < 3; ++i) step({2, 16, 0}, 100);
    expect(calls == 3, "from then on the graph runs");
    step({4, 16, 0}, 100);
    expect(calls == 4 && graphs.num_graphs() == 1, "another shape begins for itself");

    step({2, 16, 0}, 200);
    expect(calls == 5 && graphs.num_graphs() == 0, "when the ops' memory has moved, all is forgotten");

    step({2, 16, 0}, 200);
    graphs.run({2, 16, 0}, 300, ops);  // while the graph is being made
    expect(read(x, stream) == ++expected && graphs.num_graphs() == 0, "even what is not ready yet");

    bool thrown = false;
    try {
      graphs.run({1, 16, 0}, 300, [] { throw parley::Error("no"); });
    } catch (const parley::Error&) {
      thrown = true;
    }
    expect(thrown, "a failure of the ops comes through");
    expect(graphs.take_warning().empty(), "and is none of the graphs'");
    step({2, 16, 0}, 300);
    wait_for_graphs(1);
    calls = 0;
    step({2, 16, 0}, 300);
    expect(calls == 0, "and the next graph is made and runs");
  }
  {
    StepGraphs graphs(0, stream);
    graphs.run({2, 16, 0}, 0, ops);
    int call = 0;
    graphs.run({2, 16, 0}, 0, [&] {
      if (++call == 2) throw parley::Error("no");
      ops();
    });
    expected += 2;
    expect(read(x, stream) == expected, "a failure of the recording is none of the step's");
    expect(graphs.take_warning() == "steps are not recorded as graphs any more, and start more slowly: no", "it is told");
    expect(graphs.take_warning().empty(), "once");
    calls = 0;
    for (int i = 0; i < 4; ++i) graphs.run({4, 16, 0}, 0, ops);
    expect(calls == 4 && read(x, stream) == expected + 4, "and nothing is recorded behind it");
  }
  {
    StepGraphs graphs(0, stream);
    for (int64_t rows = 1; rows <= 20; ++rows) {
      for (int i = 0; i < 2; ++i) graphs.run({rows, 16, 0}, 0, ops);
    }
    // It ends while graphs are being made.
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
