#include "block.h"

#include <link.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <exception>
#include <memory>
#include <stdexcept>
#include <vector>

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace emulator {

// ---- Fibers: a stack and where it stopped.

#if defined(__x86_64__)
// Keeps the caller's registers on its stack and goes on where `to` was left. The stack pointer is all that a stopped fiber is.
extern "C" void emulator_switch(void** from, void* to);
asm(R"(
.text
.type emulator_switch, @function
emulator_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size emulator_switch, .-emulator_switch
)");
constexpr int kSavedRegisters = 6;
#elif defined(__aarch64__)
extern "C" void emulator_switch(void** from, void* to);
asm(R"(
.text
.type emulator_switch, %function
emulator_switch:
  sub sp, sp, #160
  stp x19, x20, [sp]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x2, sp
  str x2, [x0]
  mov sp, x1
  ldp x19, x20, [sp]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
.size emulator_switch, .-emulator_switch
)");
#else
#error "the emulator switches stacks on x86-64 and aarch64 only"
#endif

struct Copy {
  void* to;
  const void* from;
  int bytes;
  int valid_bytes;
};

struct TryLater {};

struct Thread {
  void* stack = nullptr;  // where it stopped
  uint3 index{};
  int number = 0;
  bool done = false;
  const char* waits_for = "";  // said if nobody can go on
  std::vector<Copy> copies;     // in flight, oldest first
  std::vector<size_t> groups;   // how many of them each committed group has
  size_t uncommitted = 0;
  std::vector<Wgmma> wgmmas;  // as copies
  std::vector<size_t> wgmma_groups;
  size_t uncommitted_wgmmas = 0;
};

namespace {

constexpr int64_t kStackBytes = 256 * 1024;  // address space; a kernel touches a few KiB
constexpr int64_t kGuardBytes = 4096;
constexpr int kMostThreads = 1024;

// The thread-local memory of this library: the static __shared__ arrays and nothing else.
struct Range {
  char* data = nullptr;
  size_t bytes = 0;
};
Range static_shared() {
  static thread_local char any;
  Range range;
  range.data = &any;
  dl_iterate_phdr(
      [](dl_phdr_info* info, size_t, void* out) {
        Range& found = *static_cast<Range*>(out);
        char* block = static_cast<char*>(info->dlpi_tls_data);
        for (int i = 0; i < info->dlpi_phnum; ++i) {
          const auto& segment = info->dlpi_phdr[i];
          if (segment.p_type != PT_TLS || !block || found.data < block || found.data >= block + segment.p_memsz) continue;
          found = {block, segment.p_memsz};
          return 1;
        }
        return 0;
      },
      &range);
  if (range.bytes == 0) range.data = nullptr;
  return range;
}

// Lanes of one warp that wait for each other.
struct Pending {
  Meeting kind;
  uint32_t mask;
  uint32_t arrived;
  Meet work;
  void* lanes[32];
};

struct Warp {
  uint32_t alive = 0;
  std::vector<Pending> pending;
};

// A barrier's 64 bits.
struct Barrier {
  uint64_t arrivals : 15;  // of a phase
  int64_t missing : 16;
  int64_t bytes : 32;
  uint64_t phase : 1;
};

// Threads of a block that wait at a barrier in shared memory, or for others at a named one.
struct Waiting {
  int thread;
  const uint64_t* barrier;
  int group;
};

struct Grid {
  char* stacks = nullptr;
  void* scheduler = nullptr;  // where the scheduler stopped
  Thread threads[kMostThreads];
  Warp warps[kMostThreads / 32];
  std::vector<int> ready;  // threads that can go on, the next one last
  Thread* current = nullptr;
  int num_threads = 0;
  int alive = 0;
  int at_barrier = 0;
  const char* barrier_file = nullptr;
  int barrier_line = 0;
  const std::function<void()>* body = nullptr;
  std::vector<char> shared;
  int64_t shared_bytes = 0;
  Range static_shared;  // of the OS thread that runs the grid
  std::string failure;
  std::vector<Load> loads;  // under way, oldest first
  std::vector<Waiting> waiting;
  bool later = false;  // the block wants to be tried later
  uint64_t order = 0x9e3779b97f4a7c15u;  // of the generator that shuffles threads
};

Grid& grid() {
  static Grid the_one;
  return the_one;
}

void to_scheduler() { emulator_switch(&grid().current->stack, grid().scheduler); }

// Does the work of lanes that have all come, and lets them go on.
void finish(const Pending& pending, int first_thread) {
  if (pending.work) pending.work(pending.lanes, pending.arrived);
  for (int i = 0; i < 32; ++i) {
    if ((pending.arrived >> i & 1) && &grid().threads[first_thread + i] != grid().current) grid().ready.push_back(first_thread + i);
  }
}

void release_block_if_full() {
  Grid& g = grid();
  if (g.at_barrier == 0 || g.at_barrier < g.alive) return;
  g.at_barrier = 0;
  for (int i = g.num_threads - 1; i >= 0; --i) {
    Thread& thread = g.threads[i];
    if (!thread.done && &thread != g.current) g.ready.push_back(i);
  }
}

void run_copies(Thread& thread, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    const Copy& copy = thread.copies[i];
    std::memcpy(copy.to, copy.from, static_cast<size_t>(copy.valid_bytes));
    std::memset(static_cast<char*>(copy.to) + copy.valid_bytes, 0, static_cast<size_t>(copy.bytes - copy.valid_bytes));
  }
  thread.copies.erase(thread.copies.begin(), thread.copies.begin() + static_cast<std::ptrdiff_t>(count));
}

Barrier& barrier_at(uint64_t* barrier) {
  if (!is_shared(barrier, 8) || reinterpret_cast<uintptr_t>(barrier) % 8 != 0) fault("a barrier that is not 8 aligned bytes of shared memory");
  static_assert(sizeof(Barrier) == 8, "");
  return *reinterpret_cast<Barrier*>(barrier);
}

void end_phase_if_full(uint64_t* at) {
  Grid& g = grid();
  Barrier& barrier = barrier_at(at);
  if (barrier.missing < 0) fault("a barrier at which more arrive than were said");
  if (barrier.missing > 0 || barrier.bytes != 0) return;
  barrier.phase ^= 1;
  barrier.missing = barrier.arrivals;
  for (size_t i = 0; i < g.waiting.size();) {
    if (g.waiting[i].barrier != at) {
      ++i;
      continue;
    }
    g.ready.push_back(g.waiting[i].thread);
    g.waiting.erase(g.waiting.begin() + static_cast<std::ptrdiff_t>(i));
  }
}

// The 128-byte swizzle: of an address, bits 4 to 6 are changed by bits 7 to 9.
char* swizzled(char* at) {
  const auto address = reinterpret_cast<uintptr_t>(at);
  return reinterpret_cast<char*>(address ^ (address >> 7 & 7) << 4);
}

// Does the loads for which somebody waits at `barrier`.
void run_loads(uint64_t* barrier) {
  std::vector<Load>& loads = grid().loads;
  for (size_t i = 0; i < loads.size();) {
    if (loads[i].barrier != barrier) {
      ++i;
      continue;
    }
    const Load load = loads[i];
    loads.erase(loads.begin() + static_cast<std::ptrdiff_t>(i));
    for (int row = 0; row < load.box_rows; ++row) {
      for (int piece = 0; piece < 8; ++piece) {
        char* to = swizzled(load.tile + row * 128 + piece * 16);
        if (row < load.there && piece * 16 < load.bytes) std::memcpy(to, load.rows + row * load.row_bytes + piece * 16, 16);
        else std::memset(to, 0, 16);
      }
    }
    barrier_at(barrier).bytes -= load.box_rows * 128;
    end_phase_if_full(barrier);
  }
}

void run_wgmmas(Thread& thread, size_t count) {
  for (size_t i = 0; i < count; ++i) thread.wgmmas[i].run(thread.wgmmas[i], thread.number % 128);
  thread.wgmmas.erase(thread.wgmmas.begin(), thread.wgmmas.begin() + static_cast<std::ptrdiff_t>(count));
}

[[noreturn]] void thread_main() {
  Grid& g = grid();
  try {
    (*g.body)();
    Thread& self = *g.current;
    run_copies(self, self.copies.size());
    if (!self.wgmmas.empty()) fault("a thread ends with wgmma under way");
    self.done = true;
    --g.alive;
    Warp& warp = g.warps[self.number / 32];
    warp.alive &= ~(1u << self.number % 32);
    for (size_t i = 0; i < warp.pending.size();) {  // lanes that waited only for this one
      if (warp.pending[i].arrived == (warp.pending[i].mask & warp.alive)) {
        const Pending pending = warp.pending[i];
        warp.pending.erase(warp.pending.begin() + static_cast<std::ptrdiff_t>(i));
        finish(pending, self.number / 32 * 32);
      } else {
        ++i;
      }
    }
    release_block_if_full();
  } catch (const TryLater&) {
    g.later = true;
  } catch (const std::exception& error) {
    g.failure = error.what();
  }
  to_scheduler();
  std::terminate();  // nobody resumes a thread that is done
}

void prepare(Thread& thread, int number, dim3 block) {
  char* top = grid().stacks + (number + 1) * kStackBytes;
#if defined(__x86_64__)
  void** at = reinterpret_cast<void**>(top);
  *--at = nullptr;  // the return address of thread_main, which never returns
  *--at = reinterpret_cast<void*>(&thread_main);
  for (int i = 0; i < kSavedRegisters; ++i) *--at = nullptr;
  thread.stack = at;
#else
  void** at = reinterpret_cast<void**>(top - 160);
  std::memset(at, 0, 160);
  at[11] = reinterpret_cast<void*>(&thread_main);  // x30
  thread.stack = at;
#endif
  const unsigned n = static_cast<unsigned>(number);
  thread.index = {n % block.x, n / block.x % block.y, n / (block.x * block.y)};
  thread.number = number;
  thread.done = false;
  thread.waits_for = "";
  thread.copies.clear();
  thread.groups.clear();
  thread.uncommitted = 0;
  thread.wgmmas.clear();
  thread.wgmma_groups.clear();
  thread.uncommitted_wgmmas = 0;
}

uint64_t random_number() {
  uint64_t& x = grid().order;  // xorshift64
  x ^= x << 13;
  x ^= x >> 7;
  x ^= x << 17;
  return x;
}

void run_block(dim3 block) {
  Grid& g = grid();
  g.num_threads = static_cast<int>(block.x * block.y * block.z);
  g.alive = g.num_threads;
  g.at_barrier = 0;
  g.ready.clear();
  g.loads.clear();
  g.waiting.clear();
  for (Warp& warp : g.warps) {
    warp.alive = 0;
    warp.pending.clear();
  }
  for (int i = 0; i < g.num_threads; ++i) {
    prepare(g.threads[i], i, block);
    g.warps[i / 32].alive |= 1u << i % 32;
  }
  // Forwards or backwards, from anywhere: a missing barrier shows in one of the orders.
  const uint64_t random = random_number();
  const int start = static_cast<int>((random >> 8) % static_cast<uint64_t>(g.num_threads));
  for (int i = 0; i < g.num_threads; ++i) {
    const int step = random & 1 ? i : g.num_threads - 1 - i;
    g.ready.push_back((start + step) % g.num_threads);
  }
  while (!g.ready.empty() && g.failure.empty() && !g.later) {
    const int next = g.ready.back();
    g.ready.pop_back();
    g.current = &g.threads[next];
    threadIdx = g.current->index;
    emulator_switch(&g.scheduler, g.current->stack);
  }
  if (g.failure.empty() && !g.later && g.alive > 0) {
    g.failure = "threads wait for ever:";
    const char* last = "";
    for (int i = 0; i < g.num_threads; ++i) {
      const Thread& thread = g.threads[i];
      if (thread.done || thread.waits_for == last) continue;
      last = thread.waits_for;
      g.failure += " thread " + std::to_string(i) + " at " + last + ",";
    }
    g.failure += " others have ended or wait elsewhere";
  }
  if (g.failure.empty() && !g.later && !g.loads.empty()) g.failure = "the block ends with loads under way";
}

const char* name_of(Meeting kind) {
  static const char* const kNames[] = {"__syncwarp", "a shuffle", "a vote", "a match", "a reduction", "ldmatrix", "mma"};
  return kNames[static_cast<int>(kind)];
}

}  // namespace

void try_later() { throw TryLater(); }

void fault(const char* format, ...) {
  char text[512];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  throw std::runtime_error(std::string(text) + " (thread " + std::to_string(grid().current->number) + " of block " +
                           std::to_string(blockIdx.x) + ", " + std::to_string(blockIdx.y) + ", " +
                           std::to_string(blockIdx.z) + ")");
}

int lane() { return grid().current->number % 32; }

void sync_block(const char* file, int line) {
  Grid& g = grid();
  Thread& self = *g.current;
  if (g.at_barrier == 0) {
    g.barrier_file = file;
    g.barrier_line = line;
  } else if (g.barrier_line != line || std::strcmp(g.barrier_file, file) != 0) {
    fault("__syncthreads of %s:%d, while others of the block wait at %s:%d", file, line, g.barrier_file, g.barrier_line);
  }
  ++g.at_barrier;
  if (g.at_barrier == g.alive) {
    release_block_if_full();
    return;
  }
  self.waits_for = "__syncthreads";
  to_scheduler();
}

void meet(Meeting kind, uint32_t mask, void* mine, Meet work) {
  Grid& g = grid();
  Thread& self = *g.current;
  const int me = self.number % 32;
  Warp& warp = g.warps[self.number / 32];
  if (!(mask >> me & 1)) fault("%s with mask %08x, which lane %d is not in", name_of(kind), mask, me);
  size_t at = 0;
  while (at < warp.pending.size() && warp.pending[at].mask != mask) ++at;
  if (at == warp.pending.size()) warp.pending.push_back({kind, mask, 0, work, {}});
  Pending& pending = warp.pending[at];
  if (pending.kind != kind || pending.work != work) {
    fault("%s, while other lanes of mask %08x are at %s", name_of(kind), mask, name_of(pending.kind));
  }
  pending.arrived |= 1u << me;
  pending.lanes[me] = mine;
  if (pending.arrived == (mask & warp.alive)) {
    const Pending full = pending;
    warp.pending.erase(warp.pending.begin() + static_cast<std::ptrdiff_t>(at));
    finish(full, self.number / 32 * 32);
    return;
  }
  self.waits_for = name_of(kind);
  to_scheduler();
}

void meet_shuffle(void* const lanes[32], uint32_t participants) {
  for (int i = 0; i < 32; ++i) {
    if (!(participants >> i & 1)) continue;
    const Shuffle& mine = *static_cast<Shuffle*>(lanes[i]);
    if (mine.source < 0 || mine.source > 31 || !(participants >> mine.source & 1)) {
      fault("lane %d shuffles from lane %d, which takes no part", i, mine.source);
    }
    const Shuffle& source = *static_cast<Shuffle*>(lanes[mine.source]);
    if (source.bytes != mine.bytes) fault("lanes shuffle %d and %d bytes", mine.bytes, source.bytes);
    std::memcpy(mine.out, source.in, static_cast<size_t>(mine.bytes));
  }
}

void meet_vote(void* const lanes[32], uint32_t participants) {
  uint32_t ballot = 0;
  for (int i = 0; i < 32; ++i) {
    if (participants >> i & 1 && static_cast<Vote*>(lanes[i])->in) ballot |= 1u << i;
  }
  for (int i = 0; i < 32; ++i) {
    if (participants >> i & 1) static_cast<Vote*>(lanes[i])->out = ballot;
  }
}

void* dynamic_shared() {
  char* start = grid().shared.data();
  return start + (1024 - reinterpret_cast<uintptr_t>(start) % 1024) % 1024;
}

bool is_shared(const void* at, int64_t bytes) {
  const char* begin = static_cast<const char*>(at);
  const char* dynamic = static_cast<const char*>(dynamic_shared());
  const Range fixed = grid().static_shared;
  return (begin >= dynamic && begin + bytes <= dynamic + grid().shared_bytes) ||
         (begin >= fixed.data && begin + bytes <= fixed.data + fixed.bytes);
}

void copy_async(void* shared, const void* global, int bytes, int valid_bytes) {
  if (!is_shared(shared, bytes)) fault("cp.async to memory that is not the block's shared memory");
  if (reinterpret_cast<uintptr_t>(shared) % static_cast<uintptr_t>(bytes) != 0) fault("cp.async to an unaligned address");
  if (valid_bytes > 0 && reinterpret_cast<uintptr_t>(global) % static_cast<uintptr_t>(bytes) != 0) {
    fault("cp.async from an unaligned address");
  }
  Thread& self = *grid().current;
  self.copies.push_back({shared, global, bytes, valid_bytes});
  ++self.uncommitted;
}

void commit_copies() {
  Thread& self = *grid().current;
  self.groups.push_back(self.uncommitted);
  self.uncommitted = 0;
}

void wait_for_copies(int groups_left) {
  Thread& self = *grid().current;
  size_t count = 0;
  size_t done = 0;
  while (self.groups.size() - done > static_cast<size_t>(groups_left)) count += self.groups[done++];
  self.groups.erase(self.groups.begin(), self.groups.begin() + static_cast<std::ptrdiff_t>(done));
  run_copies(self, count);
}

void barrier_init(uint64_t* at, int arrivals) {
  Barrier& barrier = barrier_at(at);
  barrier.arrivals = static_cast<uint64_t>(arrivals) & 0x7fff;
  barrier.missing = arrivals;
  barrier.bytes = 0;
  barrier.phase = 0;
}

void barrier_arrive(uint64_t* at, uint32_t bytes) {
  Barrier& barrier = barrier_at(at);
  barrier.bytes += bytes;
  --barrier.missing;
  end_phase_if_full(at);
}

void barrier_wait(uint64_t* at, uint32_t parity) {
  Grid& g = grid();
  if (barrier_at(at).phase != (parity & 1)) return;
  run_loads(at);
  if (barrier_at(at).phase != (parity & 1)) return;
  g.waiting.push_back({g.current->number, at, 0});
  g.current->waits_for = "a barrier in shared memory";
  to_scheduler();
}

void sync_group(int id, int threads) {
  Grid& g = grid();
  if (id < 1 || id > 15 || threads % 32 != 0) fault("a barrier %d for %d threads", id, threads);
  int there = 1;
  for (const Waiting& other : g.waiting) there += other.group == id;
  if (there < threads) {
    g.waiting.push_back({g.current->number, nullptr, id});
    g.current->waits_for = "a barrier of a group";
    to_scheduler();
    return;
  }
  for (size_t i = 0; i < g.waiting.size();) {
    if (g.waiting[i].group != id) {
      ++i;
      continue;
    }
    g.ready.push_back(g.waiting[i].thread);
    g.waiting.erase(g.waiting.begin() + static_cast<std::ptrdiff_t>(i));
  }
}

void start_load(const Load& load) {
  if (!is_shared(load.tile, load.box_rows * 128) || reinterpret_cast<uintptr_t>(load.tile) % 1024 != 0) {
    fault("a load to what is not shared memory at a multiple of 1,024 bytes");
  }
  grid().loads.push_back(load);
  for (const Waiting& waiting : grid().waiting) {
    if (waiting.barrier == load.barrier) return run_loads(load.barrier);
  }
}

void start_wgmma(const Wgmma& wgmma) {
  grid().current->wgmmas.push_back(wgmma);
  ++grid().current->uncommitted_wgmmas;
}

void commit_wgmma() {
  Thread& self = *grid().current;
  self.wgmma_groups.push_back(self.uncommitted_wgmmas);
  self.uncommitted_wgmmas = 0;
}

void wait_for_wgmma(int groups_left) {
  Thread& self = *grid().current;
  size_t count = 0;
  size_t done = 0;
  while (self.wgmma_groups.size() - done > static_cast<size_t>(groups_left)) count += self.wgmma_groups[done++];
  self.wgmma_groups.erase(self.wgmma_groups.begin(), self.wgmma_groups.begin() + static_cast<std::ptrdiff_t>(done));
  run_wgmmas(self, count);
}

std::string run_grid(dim3 grid_dims, dim3 block, int64_t shared_bytes, const std::function<void()>& thread_body, uint64_t& next) {
  Grid& g = grid();
  if (!g.stacks) {
    g.stacks = static_cast<char*>(mmap(nullptr, kMostThreads * kStackBytes, PROT_READ | PROT_WRITE,
                                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    if (g.stacks == MAP_FAILED) {
      g.stacks = nullptr;
      return "no memory for stacks";
    }
    for (int i = 0; i < kMostThreads; ++i) mprotect(g.stacks + i * kStackBytes, kGuardBytes, PROT_NONE);
  }
  gridDim = grid_dims;
  blockDim = block;
  g.body = &thread_body;
  g.shared_bytes = shared_bytes;
  g.shared.resize(static_cast<size_t>(shared_bytes) + 1024);
  g.failure.clear();
  g.static_shared = static_shared();
  const Range fixed = g.static_shared;
  g.later = false;
  for (const uint64_t end = uint64_t{grid_dims.x} * grid_dims.y * grid_dims.z; next < end; ++next) {
    blockIdx = {static_cast<unsigned>(next % grid_dims.x), static_cast<unsigned>(next / grid_dims.x % grid_dims.y),
                static_cast<unsigned>(next / grid_dims.x / grid_dims.y)};
    std::memset(g.shared.data(), 0xff, g.shared.size());
    if (fixed.bytes > 0) std::memset(fixed.data, 0xff, fixed.bytes);
    run_block(block);
    if (g.later || !g.failure.empty()) break;
  }
  return g.failure;
}

}  // namespace emulator
