#include "cuda/cuda_backend.h"

#include <algorithm>
#include <cstring>

#include "base/arithmetic.h"
#include "cuda/attention.h"
#include "cuda/elementwise.h"
#include "cuda/experts.h"
#include "cuda/idle_clock.h"
#include "cuda/linear.h"
#include "cuda/memory.h"
#include "cuda/norm.h"
#include "cuda/pack.h"
#include "cuda/packed_weight.h"
#include "cuda/rope.h"
#include "cuda/route.h"
#include "cuda/sample.h"
#include "cuda/status.h"
#include "cuda/step_block.h"
#include "cuda/step_graphs.h"
#include "cuda/stream_end.h"

namespace parley {
namespace {

// Owns the stream in which all that one backend does is done, in order.
class Stream {
 public:
  explicit Stream(int device) {
    check(cudaSetDevice(device), "choice of the GPU");
    check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "stream");
  }
  ~Stream() { cudaStreamDestroy(stream_); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  cudaStream_t get() const { return stream_; }

 private:
  cudaStream_t stream_ = nullptr;
};

// Points in time that other streams wait for.
class Marks {
 public:
  explicit Marks(cudaStream_t stream) : stream_(stream) {
    for (cudaEvent_t& event : events_) check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "event");
  }
  ~Marks() {
    for (const cudaEvent_t event : events_) {
      if (event) cudaEventDestroy(event);
    }
  }
  Marks(const Marks&) = delete;
  Marks& operator=(const Marks&) = delete;

  cudaEvent_t mark() {
    next_ ^= 1;
    check(cudaEventRecord(events_[next_], stream_), "event");
    return events_[next_];
  }

 private:
  cudaStream_t stream_;
  cudaEvent_t events_[2] = {};
  int next_ = 0;
};

// What is uploaded stands in pinned memory until the GPU has taken it: a ring of buffers, each reused when its event has happened.
class Uploader {
 public:
  explicit Uploader(cudaStream_t stream) : stream_(stream) {
    for (Buffer& buffer : buffers_) check(cudaEventCreateWithFlags(&buffer.taken, cudaEventDisableTiming), "event");
  }
  ~Uploader() {
    for (Buffer& buffer : buffers_) {
      if (buffer.taken) cudaEventDestroy(buffer.taken);
    }
  }
  Uploader(const Uploader&) = delete;
  Uploader& operator=(const Uploader&) = delete;

  void upload(void* to, const void* from, int64_t bytes) {
    for (int64_t done = 0; done < bytes; done += kBufferBytes) {
      const int64_t part = std::min(bytes - done, kBufferBytes);
      Buffer& buffer = buffers_[next_];
      next_ = (next_ + 1) % kBuffers;
      check(cudaEventSynchronize(buffer.taken), "upload");
      char* host = buffer.memory.reserve<char>(kBufferBytes);
      std::memcpy(host, static_cast<const char*>(from) + done, static_cast<size_t>(part));
      check(cudaMemcpyAsync(static_cast<char*>(to) + done, host, static_cast<size_t>(part), cudaMemcpyHostToDevice, stream_), "upload");
      check(cudaEventRecord(buffer.taken, stream_), "event");
    }
  }

  // Takes all memory that it will ever need.
  void reserve() {
    for (Buffer& buffer : buffers_) buffer.memory.reserve<char>(kBufferBytes);
  }

 private:
  static constexpr int kBuffers = 8;
  static constexpr int64_t kBufferBytes = 1 << 20;

  struct Buffer {
    cudaEvent_t taken = nullptr;
    cuda::PinnedScratch memory;
  };

  cudaStream_t stream_;
  Buffer buffers_[kBuffers];
  int next_ = 0;
};

int64_t multiprocessors(int device) {
  int count = 0;
  check(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device), "the GPU's multiprocessors");
  return count;
}

class CudaBackend : public Backend {
 public:
  CudaBackend(int device, bool deterministic, int64_t give_up_after_ms)
      : device_(device),
        stream_(device),
        uploader_(stream_.get()),
        marks_(stream_.get()),
        end_(stream_.get(), give_up_after_ms),
        packer_(stream_.get()),
        block_(stream_.get()),
        linear_(stream_.get(), multiprocessors(device), deterministic),
        experts_(stream_.get(), linear_),
        attention_(stream_.get(), multiprocessors(device)),
        idle_(stream_.get()),
        sampler_(stream_.get(), idle_, give_up_after_ms),
        graphs_(device, stream_.get()) {}

  void* allocate(int64_t bytes) override {
    use();
    return bytes == 0 ? nullptr : cuda::DeviceAllocator::take(bytes);
  }

  void release(void* memory, int64_t) noexcept override { cuda::DeviceAllocator::give(memory); }

  void upload(void* to, const void* from, int64_t bytes) override {
    use();
    uploader_.upload(to, from, bytes);
  }

  void download(void* to, const void* from, int64_t bytes) override {
    use();
    if (bytes > 0) check(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDeviceToHost, stream_.get()), "download");
    end_.set("the work of the GPU");
    end_.wait("the work of the GPU");
  }

  cudaStream_t stream() const { return stream_.get(); }

  void* mark() override {
    use();
    return marks_.mark();
  }

  void follow(void* mark) override {
    use();
    check(cudaStreamWaitEvent(stream_.get(), static_cast<cudaEvent_t>(mark), 0), "a wait for another rank's work");
  }

  // Rows without padding are laid out as the kernels of `linear` want them.
  DType input_type(DType dtype, int64_t cols) const override { return cols % cuda::kUnitCols == 0 ? dtype : DType::float32; }

  int64_t packed_bytes(int64_t rows, int64_t cols, DType dtype) const override { return cuda::packed_weight_bytes(rows, cols, dtype); }

  void pack_rows(Span<const StoredRows> runs) override {
    use();
    packer_.pack_rows(runs);
  }

  int64_t scratch_bytes(const ScratchLimits& limits) const override {
    int64_t bytes = block_bytes(limits);
    for (const int64_t more : {linear_.scratch_bytes(limits), experts_.scratch_bytes(limits), attention_.scratch_bytes(limits),
                               sampler_.scratch_bytes(limits)}) {
      bytes = checked_add(bytes, more);
    }
    return bytes;
  }

  int64_t held_scratch_bytes() const override {
    return block_.held_bytes() + linear_.held_scratch_bytes() + experts_.held_scratch_bytes() + attention_.held_bytes() +
           sampler_.held_bytes();
  }

  // Weights are there when this is called: what packing them took is given back first.
  void reserve_scratch(const ScratchLimits& limits) override {
    use();
    packer_.release();
    uploader_.reserve();
    block_.reserve(block_bytes(limits));
    linear_.reserve_scratch(limits);
    experts_.reserve_scratch(limits);
    attention_.reserve(limits);
    sampler_.reserve(limits);
  }

  ListBlock begin_block(int64_t count) override {
    use();
    block_.begin();
    sampler_.begin_block();
    attention_.begin_block(block_);
    const auto lists = block_.take<int32_t>(count);
    return {lists.host, lists.device};
  }

  void plan_attention(const AttentionRows& rows, HeadLayout heads, const AttentionRule& rule) override {
    attention_.plan(rows, heads, rule, block_);
  }

  void plan_choices(Span<const SampleRow> samples, Span<const ScoreRow> scores) override { sampler_.plan(samples, scores, block_); }

  void send_block() override {
    use();
    idle_.begin();
    block_.send();
  }

  bool is_asynchronous() const override { return true; }

  void wait_for_choices() override {
    use();
    sampler_.wait();
  }

  void forget_choices() override { sampler_.forget(); }

  std::string broken() const override { return cuda::broken(); }

  StepShape padded(const StepShape& shape) const override { return cuda::padded_shape(shape); }

  void record(const StepShape& shape, const std::function<void()>& ops) override {
    use();
    graphs_.run(shape, held_scratch_bytes() - sampler_.held_bytes(), ops);  // what they record does not sample
  }

  std::string take_warning() override { return graphs_.take_warning(); }

  std::vector<float> take_idle_us() override {
    use();
    return idle_.take();
  }

  void embed(Matrix<float> out, const PackedWeight& table, Span<const int32_t> tokens, Span<const float> chosen, int64_t first,
             float scale) override {
    use();
    cuda::embed(stream_.get(), out, table, tokens, chosen, first, scale);
  }
  void sum(Matrix<float> out, Span<const Matrix<const float>> parts, Span<const float> bias, Epilogue epilogue) override {
    use();
    cuda::sum(stream_.get(), out, parts, bias, epilogue);
  }
  void take_rows(Matrix<float> out, Matrix<const float> x, Span<const int32_t> rows) override {
    use();
    cuda::take_rows(stream_.get(), out, x, rows);
  }
  void layer_norm(Matrix<float> out, Matrix<const float> x, Span<const float> weight, Span<const float> bias, int64_t width,
                  float eps) override {
    use();
    cuda::layer_norm(stream_.get(), out, x, weight, bias, width, eps);
  }
  void rms_norm(Matrix<float> out, Matrix<const float> x, Span<const float> weight, int64_t width, float eps) override {
    use();
    cuda::rms_norm(stream_.get(), out, x, weight, width, eps);
  }
  void normalise(Matrix<const float> x, Span<const RowNorm> norms) override {
    use();
    cuda::normalise(stream_.get(), x, norms);
  }
  void gate(Output out, Matrix<const float> x, Activation activation) override {
    use();
    cuda::gate(stream_.get(), out, x, activation);
  }
  void scale(Matrix<float> x, float factor) override {
    use();
    cuda::scale(stream_.get(), x, factor);
  }
  void softcap(Matrix<float> x, float cap) override {
    use();
    cuda::softcap(stream_.get(), x, cap);
  }
  void linear(Span<const Product> products) override {
    use();
    linear_.run(products);
  }
  void route(Matrix<int32_t> experts, Matrix<float> shares, Matrix<const float> logits, bool normalise) override {
    use();
    cuda::route(stream_.get(), experts, shares, logits, normalise);
  }
  void mix_experts(Matrix<float> out, Matrix<const float> x, Matrix<const int32_t> experts, Matrix<const float> shares,
                   Span<const ExpertWeights> weights, Activation activation) override {
    use();
    experts_.mix(out, x, experts, shares, weights, activation);
  }
  void rope(Matrix<float> qkv, Span<const int32_t> positions, Matrix<const float> cos_sin, HeadLayout heads, RopeLayout layout) override {
    use();
    cuda::rope(stream_.get(), qkv, positions, cos_sin, heads, layout);
  }
  void write_kv(const KvLayer& kv, Matrix<const float> qkv, Span<const int32_t> slots, HeadLayout heads) override {
    use();
    cuda::write_kv(stream_.get(), kv, qkv, slots, heads);
  }
  void rope_and_write_kv(const KvLayer& kv, Matrix<float> qkv, Span<const int32_t> positions, Matrix<const float> cos_sin,
                         Span<const int32_t> slots, HeadLayout heads, RopeLayout layout) override {
    use();
    cuda::rope_and_write_kv(stream_.get(), kv, qkv, positions, cos_sin, slots, heads, layout);
  }
  void copy_page(const KvLayer& kv, int64_t from, int64_t to, HeadLayout heads) override {
    use();
    cuda::copy_page(stream_.get(), kv, from, to, heads);
  }
  void attention(Output out, Matrix<const float> qkv, const KvLayer& kv, const AttentionRows& rows, HeadLayout heads,
                 const AttentionRule& rule) override {
    use();
    attention_.run(out, qkv, kv, rows, heads, rule);
  }
  void sample(Matrix<float> logits, Span<float> chosen, Span<const SampleRow> rows, int64_t num_sampled_ids, Span<int32_t> tokens,
              Span<float> logprobs, Span<int32_t> ranks, Matrix<int32_t> top_tokens, Matrix<float> top_logprobs) override {
    use();
    sampler_.sample(logits, chosen.data, rows, num_sampled_ids, {tokens, logprobs, ranks, top_tokens, top_logprobs});
  }
  void score(Matrix<float> logits, Span<const ScoreRow> rows, Span<float> logprobs, Span<int32_t> ranks, Matrix<int32_t> top_tokens,
             Matrix<float> top_logprobs) override {
    use();
    sampler_.score(logits, rows, {{}, logprobs, ranks, top_tokens, top_logprobs});
  }

 private:
  int64_t block_bytes(const ScratchLimits& limits) const {
    const int64_t of_lists = cuda::StepBlock::bytes<int32_t>(limits.list_numbers);
    return checked_add(checked_add(of_lists, attention_.block_bytes(limits)), sampler_.block_bytes(limits));
  }

  // CUDA's choice of a device is the thread's; a backend is made by one thread and worked by another.
  void use() { check(cudaSetDevice(device_), "choice of the GPU"); }

  int device_;
  Stream stream_;  // the rest is freed before it
  Uploader uploader_;
  Marks marks_;
  cuda::StreamEnd end_;
  cuda::Packer packer_;
  cuda::StepBlock block_;
  cuda::Linear linear_;
  cuda::Experts experts_;
  cuda::Attention attention_;
  cuda::IdleClock idle_;
  cuda::Sampler sampler_;
  cuda::StepGraphs graphs_;
};

}  // namespace

cudaStream_t cuda::stream_of(const Backend& backend) { return static_cast<const CudaBackend&>(backend).stream(); }

std::unique_ptr<Backend> make_cuda_backend(int device, bool deterministic, int64_t give_up_after_ms) {
  return std::make_unique<CudaBackend>(device, deterministic, give_up_after_ms);
}

}  // namespace parley
