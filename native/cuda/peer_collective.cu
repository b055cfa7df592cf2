#include "cuda/peer_collective.h"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <string>
#include <vector>

#include "cuda/cuda_backend.h"
#include "cuda/launch.h"
#include "cuda/memory.h"
#include "cuda/norm_run.h"
#include "cuda/numbers.h"
#include "cuda/peer_flags.h"
#include "cuda/tree_sum.h"
#include "ops/backend.h"

namespace parley {
namespace cuda {
namespace {

constexpr int kThreads = 512;  // and no more where rows are normalised, which has threads of its own
static_assert(kMostNormThreads <= kThreads);
constexpr int kMostBlocks = 64;
constexpr int kPhases = 2;
constexpr int64_t kStagingNumbers = 4 << 20;  // a piece of what the ranks exchange

// Numbers from which on NCCL adds up, which then moves more bytes a second. Not measured: 8 MiB, up to where vLLM takes kernels such as these.
constexpr int64_t kNcclNumbers = 2 << 20;

// What a rank's kernels tell the host, and it them. In the host's memory.
struct Watch {
  uint32_t entered = 0;  // the last collective that a kernel has begun
  uint32_t left = 0;     // and that it has ended
  uint32_t aborted = 0;  // 1: nobody waits any more
  uint32_t nccl_entered = 0;  // the same of NCCL's
  uint32_t nccl_left = 0;
};

// A rank's view of all. Every launch has the same number of blocks on all ranks; a block waits for the same block of the others and for no
// other, so it does not matter which run at a time. Blocks count the launches, each for itself: launch e writes the staging memory e % 2. What
// it finds there nobody reads any more, for in launch e - 1 all had come, so that all were done with launch e - 2.
struct Peers {
  int32_t rank;
  int32_t num_ranks;
  float* staging[kMostPeers];   // [2, kStagingNumbers] of each rank
  uint32_t* flags[kMostPeers];  // [kPhases, kMostBlocks, kMostPeers] of each rank: the launch to which the others' blocks have come
  uint32_t* epochs;             // [kMostBlocks]: launches so far
  volatile Watch* watch;
};

__device__ uint32_t begin(const Peers& peers) {
  const uint32_t epoch = peers.epochs[blockIdx.x] + 1;
  if (blockIdx.x == 0 && threadIdx.x == 0) peers.watch->entered = epoch;
  return epoch;
}

__device__ void end(const Peers& peers, uint32_t epoch) {
  __syncthreads();  // all have read the block's count
  if (threadIdx.x != 0) return;
  peers.epochs[blockIdx.x] = epoch;
  if (blockIdx.x == 0) peers.watch->left = epoch;
}

// What this block has written is there for the same block of all ranks behind it.
__device__ void meet(const Peers& peers, int phase, uint32_t epoch) {
  const auto flag = [&](int owner, int writer) {
    return peers.flags[owner] + (phase * kMostBlocks + static_cast<int>(blockIdx.x)) * kMostPeers + writer;
  };
  __syncthreads();
  const int peer = static_cast<int>(threadIdx.x);
  if (peer < 32) {
    const bool is_peer = peer < peers.num_ranks && peer != peers.rank;
    if (is_peer) publish(flag(peer, peers.rank), epoch);
    __syncwarp();
    if (is_peer) wait_for(flag(peers.rank, peer), epoch, &peers.watch->aborted);
  }
  __syncthreads();
}

__device__ float* staging(const Peers& peers, int rank, uint32_t epoch) { return peers.staging[rank] + epoch % 2 * kStagingNumbers; }

// These kernels wait for those of other ranks, which may run on the same GPU and need its room: they start no kernel behind them early.

// Of some rows.
struct AllReduce {
  Matrix<float> out;
  Summand summands[kMaxSummands];
  int32_t num_summands;
  RowNorm norms[kMaxNorms];
  int32_t num_norms;
  int32_t packs_of_piece;  // what a block takes at a time: whole rows where there are norms
  bool accumulate;
  bool shared;  // each rank adds up a part for all, who read it; else each adds up all
};

template <int kWidth>
__global__ void __launch_bounds__(kThreads) all_reduce_kernel(Peers peers, AllReduce call) {
  wait_for_previous_kernel();
  const uint32_t epoch = begin(peers);
  const int packs_of_row = static_cast<int>(call.out.cols) / kWidth;
  const int num_items = static_cast<int>(call.out.rows) * packs_of_row;
  // item(row, col, its place in the staging memory, the rank that adds it up) for all of the block's items. Thread i of a row's has those that
  // norm_run gives it.
  const auto each = [&](const auto& item) {
    for (int first = static_cast<int>(blockIdx.x) * call.packs_of_piece; first < num_items;
         first += static_cast<int>(gridDim.x) * call.packs_of_piece) {
      const int end = num_items - first < call.packs_of_piece ? num_items : first + call.packs_of_piece;
      for (int i = first + static_cast<int>(threadIdx.x); i < end; i += static_cast<int>(blockDim.x)) {
        item(i / packs_of_row, i % packs_of_row * kWidth, int64_t{i} * kWidth, i / 32 % peers.num_ranks);
      }
    }
  };
  const int64_t stride = int64_t{num_items} * kWidth;  // from one summand to the next
  // The rank's own part from where it is: the staging memory may be the host's, from which every number read counts.
  const auto sum = [&](int j, int row, int col, int64_t place) {
    const float* own_part = call.summands[j].part.row(row) + col;
    const int64_t place_of_part = j * stride + place;
    return tree_sum_up_to<static_cast<int>(kMostPeers)>(peers.num_ranks, [&](int rank) {
      return load_pack<kWidth>(rank == peers.rank ? own_part : staging(peers, rank, epoch) + place_of_part);
    });
  };
  float* own = staging(peers, peers.rank, epoch);

  each([&](int row, int col, int64_t place, int) {
    for (int j = 0; j < call.num_summands; ++j) {
      store_pack<kWidth>(own + j * stride + place, load_pack<kWidth>(call.summands[j].part.row(row) + col));
    }
  });
  meet(peers, 0, epoch);
  if (call.shared) {
    each([&](int row, int col, int64_t place, int owner) {
      if (owner != peers.rank) return;
      for (int j = 0; j < call.num_summands; ++j) store_pack<kWidth>(own + j * stride + place, sum(j, row, col, place));
    });
    meet(peers, 1, epoch);
  }
  each([&](int row, int col, int64_t place, int owner) {
    Pack<float, kWidth> total{};
    for (int j = 0; j < call.num_summands; ++j) {
      Pack<float, kWidth> y = call.shared ? load_pack<kWidth>(staging(peers, owner, epoch) + j * stride + place) : sum(j, row, col, place);
      const float* bias = call.summands[j].bias.data;
      if (bias) y = add(y, load_pack<kWidth>(bias + col));
      if (j == 0 && call.accumulate) total = load_pack<kWidth>(call.out.row(row) + col);
      total = j == 0 && !call.accumulate ? y : add(total, y);
    }
    store_pack<kWidth>(call.out.row(row) + col, total);
  });
  if constexpr (kWidth == 4) {
    __shared__ float scratch[32];
    for (int j = 0; j < call.num_norms; ++j) {
      const RowNorm& norm = call.norms[j];
      for (int64_t row = blockIdx.x; row < call.out.rows; row += gridDim.x) {
        const NormRun run{norm.out.at(row, 0), norm.out.dtype, call.out.row(row), norm.weight.data, norm.bias.data, call.out.cols, norm.eps};
        if (norm.kind == Norm::layer) {
          norm_run<kWidth, true>(run, scratch);
        } else {
          norm_run<kWidth, false>(run, scratch);
        }
      }
    }
  }
  end(peers, epoch);
}

// Of some rows of the parts.
struct Gather {
  Matrix<float> out;
  Matrix<const float> part;
  int32_t first_wanted;  // row of the part that is row 0 of out
  int32_t first_columns[kMostPeers];
  int32_t num_columns[kMostPeers];
};

__global__ void __launch_bounds__(kThreads) gather_kernel(Peers peers, Gather call) {
  wait_for_previous_kernel();
  constexpr int kSegments = 8;  // of a row, for there may be few rows
  const uint32_t epoch = begin(peers);
  // number(row, col of the rank) for all of the block's numbers of the rank.
  const auto each = [&](int rank, const auto& number) {
    const int cols = call.num_columns[rank];
    for (int item = static_cast<int>(blockIdx.x); item < static_cast<int>(call.part.rows) * kSegments; item += static_cast<int>(gridDim.x)) {
      const int segment = item % kSegments;
      const int last = static_cast<int>(int64_t{cols} * (segment + 1) / kSegments);
      for (int col = static_cast<int>(int64_t{cols} * segment / kSegments) + static_cast<int>(threadIdx.x); col < last; col += kThreads) {
        number(item / kSegments, col);
      }
    }
  };
  float* own = staging(peers, peers.rank, epoch);
  each(peers.rank, [&](int row, int col) { own[int64_t{row} * call.part.cols + col] = call.part.row(row)[col]; });
  meet(peers, 0, epoch);
  for (int rank = 0; rank < peers.num_ranks; ++rank) {
    const float* theirs = staging(peers, rank, epoch);
    each(rank, [&](int row, int col) {
      const int wanted = row - call.first_wanted;
      if (wanted < 0 || wanted >= call.out.rows) return;
      call.out.row(wanted)[call.first_columns[rank] + col] =
          rank == peers.rank ? call.part.row(row)[col] : theirs[int64_t{row} * call.num_columns[rank] + col];
    });
  }
  end(peers, epoch);
}

__global__ void note(volatile uint32_t* at, uint32_t number) {
  wait_for_previous_kernel();
  *at = number;
}

// The memory of all ranks that the kernels meet in, and NCCL beside it.
class PeerMemory {
 public:
  PeerMemory(Span<const int> devices, Exchange exchange, std::unique_ptr<Nccl> nccl)
      : devices_(devices.begin(), devices.end()), exchange_(exchange), nccl_(std::move(nccl)), ranks_(devices_.size()) {
    int fewest = kMostBlocks;
    for (size_t r = 0; r < ranks_.size(); ++r) {
      Rank& rank = ranks_[r];
      check(cudaSetDevice(devices_[r]), "choice of the GPU");
      if (exchange == Exchange::device) {
        rank.staging = rank.numbers.reserve<float>(2 * kStagingNumbers);
        rank.flags = rank.counts.reserve<uint32_t>(kNumFlags);
      } else {
        rank.staging = rank.host_numbers.reserve<float>(2 * kStagingNumbers);
        rank.flags = rank.host_counts.reserve<uint32_t>(kNumFlags);
      }
      rank.epochs = rank.own_counts.reserve<uint32_t>(kMostBlocks);
      rank.watch = rank.host.reserve<Watch>(1);
      *rank.watch = {};
      int count = 0;
      check(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, devices_[r]), "the GPU's multiprocessors");
      fewest = std::min(fewest, count);
    }
    num_blocks_ = static_cast<unsigned>(fewest);
    clear();
  }
  ~PeerMemory() {
    for (size_t r = 0; r < ranks_.size(); ++r) {
      cudaSetDevice(devices_[r]);
      ranks_[r].numbers.release();
      ranks_[r].counts.release();
      ranks_[r].own_counts.release();
    }
  }
  PeerMemory(const PeerMemory&) = delete;
  PeerMemory& operator=(const PeerMemory&) = delete;

  Peers peers(int64_t rank) const {
    Peers peers{};
    peers.rank = static_cast<int32_t>(rank);
    peers.num_ranks = static_cast<int32_t>(ranks_.size());
    for (size_t r = 0; r < ranks_.size(); ++r) {
      peers.staging[r] = ranks_[r].staging;
      peers.flags[r] = ranks_[r].flags;
    }
    peers.epochs = ranks_[static_cast<size_t>(rank)].epochs;
    peers.watch = ranks_[static_cast<size_t>(rank)].watch;
    return peers;
  }
  int device(int64_t rank) const { return devices_[static_cast<size_t>(rank)]; }
  unsigned num_blocks() const { return num_blocks_; }
  Exchange exchange() const { return exchange_; }
  Nccl* nccl() const { return nccl_.get(); }  // or null

  void check_not_aborted() const {
    if (!aborted_.load()) return;
    const std::lock_guard<std::mutex> lock(mutex_);
    fail(reason_);
  }

  void abort(const std::string& why) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (aborted_.load()) return;  // the first reason is the cause of the others
    reason_ = why;
    aborted_.store(true);
    for (const Rank& rank : ranks_) static_cast<volatile Watch*>(rank.watch)->aborted = 1;
    if (nccl_ != nullptr) nccl_->abort();
  }

  // Some ranks have called more collectives than others: all begin anew, when what was started has run to its end.
  void reset() {
    clear();
    for (const Rank& rank : ranks_) *rank.watch = {};
    if (nccl_ != nullptr) nccl_->reset();
    aborted_.store(false);
  }

 private:
  static constexpr int64_t kNumFlags = kPhases * kMostBlocks * kMostPeers;

  struct Rank {
    DeviceScratch numbers, counts;           // with Exchange::device
    PinnedScratch host_numbers, host_counts;  // with Exchange::host
    DeviceScratch own_counts;
    PinnedScratch host;
    float* staging = nullptr;
    uint32_t* flags = nullptr;
    uint32_t* epochs = nullptr;
    Watch* watch = nullptr;
  };

  void clear() {
    for (const bool write : {false, true}) {  // nobody writes before all are done
      for (size_t r = 0; r < ranks_.size(); ++r) {
        check(cudaSetDevice(devices_[r]), "choice of the GPU");
        if (write) {
          check(cudaMemset(ranks_[r].epochs, 0, kMostBlocks * sizeof(uint32_t)), "counts of collectives");
          if (exchange_ == Exchange::host) {
            std::fill_n(ranks_[r].flags, kNumFlags, 0);
          } else {
            check(cudaMemset(ranks_[r].flags, 0, kNumFlags * sizeof(uint32_t)), "flags of collectives");
          }
        }
        check(cudaDeviceSynchronize(), "the work of the GPU");
      }
    }
  }

  const std::vector<int> devices_;
  const Exchange exchange_;
  const std::unique_ptr<Nccl> nccl_;
  std::vector<Rank> ranks_;
  unsigned num_blocks_ = 0;
  mutable std::mutex mutex_;
  std::atomic<bool> aborted_{false};
  std::string reason_;  // guarded by mutex_
};

class PeerCollective final : public Collective {
 public:
  PeerCollective(std::shared_ptr<PeerMemory> memory, int64_t rank, Backend& backend)
      : memory_(std::move(memory)),
        rank_(rank),
        peers_(memory_->peers(rank)),
        device_(memory_->device(rank)),
        stream_(stream_of(backend)),
        backend_(backend) {}

  void all_reduce(Matrix<float> out, Span<const Summand> summands, Epilogue epilogue, Span<const RowNorm> norms) override {
    use();
    if (by_nccl(summands)) return all_reduce_by_nccl(out, summands, epilogue, norms);
    check(out.cols * summands.size <= kStagingNumbers, "an all-reduce of rows of ", out.cols, " numbers: too many");
    const bool fours = all_by_fours(out, summands, norms);
    const int64_t packs_of_row = out.cols / (fours ? 4 : 1);
    const bool fused = fours && !norms.empty();
    const int64_t rows_at_once = kStagingNumbers / (out.cols * summands.size);
    for (int64_t first = 0; first < out.rows; first += rows_at_once) {
      const int64_t count = std::min(rows_at_once, out.rows - first);
      AllReduce call{};
      call.out = {out.row(first), count, out.cols, out.stride};
      call.num_summands = static_cast<int32_t>(summands.size);
      call.accumulate = epilogue == Epilogue::accumulate;
      call.packs_of_piece = fused ? static_cast<int32_t>(packs_of_row) : kThreads;
      for (int64_t j = 0; j < summands.size; ++j) {
        const Matrix<float>& part = summands[j].part;
        call.summands[j] = {{part.row(first), count, part.cols, part.stride}, summands[j].bias};
      }
      call.shared = peers_.num_ranks > 2 && count * out.cols * summands.size > most_added_by_all();
      for (int64_t j = 0; fused && j < norms.size; ++j) {
        call.norms[j] = norms[j];
        call.norms[j].out.data = norms[j].out.at(first, 0);
        call.num_norms = static_cast<int32_t>(norms.size);
      }
      const dim3 block(fused ? norm_threads(packs_of_row) : kThreads);
      launch(fours ? all_reduce_kernel<4> : all_reduce_kernel<1>, dim3(memory_->num_blocks()), block, 0, stream_, peers_, call);
    }
    if (!fused) backend_.normalise(out, norms);
  }

  void gather(Matrix<float> out, Matrix<const float> part, Span<const Range> columns, int64_t first_row) override {
    use();
    Gather call{};
    int64_t most_columns = 1;
    for (int64_t r = 0; r < columns.size; ++r) {
      call.first_columns[r] = static_cast<int32_t>(columns[r].first);
      call.num_columns[r] = static_cast<int32_t>(columns[r].count);
      most_columns = std::max(most_columns, columns[r].count);
    }
    check(most_columns <= kStagingNumbers, "a gathering of rows of ", most_columns, " numbers: too many");
    const int64_t rows_at_once = kStagingNumbers / most_columns;
    for (int64_t first = 0; first < part.rows; first += rows_at_once) {
      call.part = {part.row(first), std::min(rows_at_once, part.rows - first), part.cols, part.stride};
      call.out = out;
      call.first_wanted = static_cast<int32_t>(first_row - first);
      launch(gather_kernel, dim3(memory_->num_blocks()), dim3(kThreads), 0, stream_, peers_, call);
    }
  }

  RankMeeting meeting() const override {
    const bool on_host = memory_->exchange() == Exchange::host;
    if (memory_->nccl() == nullptr) return on_host ? RankMeeting::host_memory : RankMeeting::peer_memory;
    return on_host ? RankMeeting::host_memory_nccl : RankMeeting::peer_memory_nccl;
  }
  // A graph with a sum of NCCL's would have to go when its communicators do.
  bool recordable(int64_t count) const override { return memory_->nccl() == nullptr || count < kNcclNumbers; }
  bool waiting() const override {
    return peers_.watch->entered != peers_.watch->left || peers_.watch->nccl_entered != peers_.watch->nccl_left || starting_.load();
  }
  int64_t progress() const override {
    const volatile Watch& watch = *peers_.watch;
    return int64_t{watch.entered} + watch.left + watch.nccl_entered + watch.nccl_left;
  }
  std::string problem() const override { return memory_->nccl() == nullptr ? "" : memory_->nccl()->problem(); }
  void abort(const std::string& why) override { memory_->abort(why); }
  void reset() override { memory_->reset(); }

 private:
  struct Starting {
    explicit Starting(std::atomic<bool>& flag) : flag(flag) { flag.store(true); }
    ~Starting() { flag.store(false); }
    std::atomic<bool>& flag;
  };

  void use() const {
    memory_->check_not_aborted();
    check(cudaSetDevice(device_), "choice of the GPU");
  }

  // Parts of rows that lie side by side: NCCL adds up numbers, and not rows. The same on all ranks.
  bool by_nccl(Span<const Summand> summands) const {
    bool possible = memory_->nccl() != nullptr;
    for (const auto& [part, bias] : summands) possible = possible && part.stride == part.cols && part.rows * part.cols >= kNcclNumbers;
    return possible;
  }

  void all_reduce_by_nccl(Matrix<float> out, Span<const Summand> summands, Epilogue epilogue, Span<const RowNorm> norms) {
    const uint32_t number = ++num_by_nccl_;
    launch(note, dim3(1), dim3(1), 0, stream_, &peers_.watch->nccl_entered, number);
    {
      const Starting starting(starting_);
      for (const Summand& summand : summands) memory_->nccl()->all_reduce(rank_, summand.part.data, summand.part.rows * summand.part.cols, stream_);
    }
    launch(note, dim3(1), dim3(1), 0, stream_, &peers_.watch->nccl_left, number);
    for (int64_t j = 0; j < summands.size; ++j) {
      const Matrix<const float> part = summands[j].part;
      backend_.sum(out, {&part, 1}, summands[j].bias, j == 0 ? epilogue : Epilogue::accumulate);
    }
    backend_.normalise(out, norms);
  }

  static bool all_by_fours(Matrix<float> out, Span<const Summand> summands, Span<const RowNorm> norms) {
    bool all = by_fours(out.data, out.stride, out.cols);
    for (const Summand& summand : summands) {
      all = all && by_fours(summand.part.data, summand.part.stride, out.cols) && by_fours(summand.bias.data, 0, out.cols);
    }
    for (const RowNorm& norm : norms) {
      all = all && by_fours(norm.out.data, norm.out.stride, out.cols, dtype_bytes(norm.out.dtype)) && by_fours(norm.weight.data, 0, out.cols) && by_fours(norm.bias.data, 0, out.cols);
    }
    return all;
  }

  // Numbers up to which reading all parts takes less time than to meet twice: 512 KiB with up to 4 ranks, 256 KiB with more, as vLLM has it.
  int64_t most_added_by_all() const { return (peers_.num_ranks <= 4 ? 512 << 10 : 256 << 10) / 4; }

  const std::shared_ptr<PeerMemory> memory_;
  const int64_t rank_;
  const Peers peers_;
  const int device_;
  const cudaStream_t stream_;
  Backend& backend_;
  uint32_t num_by_nccl_ = 0;
  std::atomic<bool> starting_{false};  // NCCL waits for the other ranks' threads
};

class PeerPlace final : public MeetingPlace {
 public:
  PeerPlace(Span<const int> devices, Exchange exchange, std::unique_ptr<Nccl> nccl)
      : memory_(std::make_shared<PeerMemory>(devices, exchange, std::move(nccl))) {}
  std::unique_ptr<Collective> join(int64_t rank, Backend& backend) override {
    return std::make_unique<PeerCollective>(memory_, rank, backend);
  }

 private:
  const std::shared_ptr<PeerMemory> memory_;
};

}  // namespace

std::unique_ptr<MeetingPlace> make_peer_place(Span<const int> devices, Exchange exchange, std::unique_ptr<Nccl> nccl) {
  check(devices.size <= kMostPeers, "ranks on GPUs of their own: expected at most ", kMostPeers, ", got ", devices.size);
  return std::make_unique<PeerPlace>(devices, exchange, std::move(nccl));
}

}  // namespace cuda
}  // namespace parley
