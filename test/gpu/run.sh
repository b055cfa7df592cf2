#!/usr/bin/env bash
# Everything that a GPU can show, on a bare machine: CUDA toolkit, g++, make and Python; no Node, no network. Nothing outside of build/ is
# written. What it prints, with date and GPU, is kept as RESULTS.md.
#
#   test/gpu/run.sh [OUT]     OUT: a folder for the results; build/gpu-results without it
#
# With Node at hand and the packages installed, the case lists of test/ops and the families' goldens run on the GPU too.
set -uo pipefail
cd "$(dirname "$0")/../.."
out=${1:-build/gpu-results}
mkdir -p "$out"
exec > >(tee "$out/run.txt") 2>&1
failures=0

# step NAME COMMAND...: a headline, the command's output, and its verdict.
step() {
  echo
  echo "== $1"
  shift
  if "$@"; then echo "-- done"; else
    echo "-- FAILED (exit code $?)"
    failures=$((failures + 1))
  fi
}

date -u +'%Y-%m-%d %H:%M UTC'
nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm,compute_cap --format=csv || exit 1
nvcc --version | tail -2
arch=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -1 | tr -d .)
# cuBLASLt, its header and the library, where pip put them.
cublas=$(python3 -c 'import nvidia, pathlib; print(*[f for p in nvidia.__path__ for f in pathlib.Path(p).glob("*/include") if (f / "cublasLt.h").exists()][:1])' 2>/dev/null)
if [ -n "$cublas" ]; then export LD_LIBRARY_PATH="${cublas%/include}/lib:${LD_LIBRARY_PATH:-}"; fi

step "build: the library, the programs that check kernels, the benchmarks (compute capability $arch)" \
  make --silent -C test/gpu -j"$(nproc)" -f device.mk ARCH="$arch" CUBLAS="$cublas"
for program in build/gpu/*; do
  case $program in *.o | *.d | *.so | *.txt) continue ;; esac
  if [ -f "$program" ]; then step "kernels: $(basename "$program")" "$program"; fi
done
# sanitize TOOL: what it finds in the programs, all at once: each takes from seconds to minutes.
sanitize() {
  local programs=(linear attention experts step_graphs) running=() failed=0
  for program in "${programs[@]}"; do
    timeout 300 compute-sanitizer --tool "$1" --error-exitcode 9 "build/gpu/$program" > "$out/$1-$program.txt" 2>&1 &
    running+=($!)
  done
  for i in "${!programs[@]}"; do
    wait "${running[i]}"
    case $? in
      0) echo "${programs[i]}: $(tail -1 "$out/$1-${programs[i]}.txt")" ;;
      124) echo "${programs[i]}: not finished in 5 minutes, and nothing found until then" ;;
      *) cat "$out/$1-${programs[i]}.txt" && failed=1 ;;
    esac
  done
  return $failed
}
if command -v compute-sanitizer > /dev/null; then
  for tool in memcheck racecheck synccheck; do step "compute-sanitizer $tool" sanitize "$tool"; done
else
  echo "== compute-sanitizer: not here, nothing was checked by it"
fi
step "benchmark: kernels" bash -o pipefail -c 'timeout 300 build/gpu-bench/kernels | tee "$0"' "$out/kernels.txt"
# Floors are made of what was measured just now: reads, and the faster product of large matrices.
gbps=$(sed -nE 's/^reading .*: ([0-9.]+) GB\/s$/\1/p' "$out/kernels.txt")
tflops=$(grep '^multiplying' "$out/kernels.txt" | grep -oE '[0-9.]+ TFLOP' | cut -d' ' -f1 | sort -gr | head -1)
export PARLEY_CUDA_LIBRARY="$PWD/build/gpu/parley_cuda.so"
rates=(--gbps "$gbps" --tflops "$tflops" --device cuda)
# KV pages for all batches and contexts: 128 x 1,024 tokens of the largest model, or what the GPU has room for.
kv_gb=$(nvidia-smi --query-gpu=memory.total --format=csv,noheader,nounits | awk '{ free = $1 / 1000 - 48; print free > 72 ? 72 : free > 8 ? free : 8; exit }')
for model in Pythia-410M Pythia-1.4B Pythia-6.9B GPT-J-6B GPT-NeoX-20B; do  # each in a process of its own, which has a first token
  step "benchmark: $model" timeout 300 build/gpu-bench/models "${rates[@]}" --kv-gb "$kv_gb" --models "$model"
done
step "benchmark: Pythia-6.9B, --deterministic" timeout 300 build/gpu-bench/models "${rates[@]}" --kv-gb "$kv_gb" --models Pythia-6.9B --deterministic yes
gpus=$(nvidia-smi --list-gpus | wc -l)  # ranks on one GPU share it, which is a test
for ranks in 2 4 8; do
  if [ "$ranks" = 2 ] || [ "$ranks" -le "$gpus" ]; then
    step "benchmark: models, $ranks ranks on $gpus GPUs" timeout 600 build/gpu-bench/models "${rates[@]}" --ranks "$ranks" --models Pythia-1.4B,GPT-NeoX-20B
  fi
done
# A Node that lies at hand: NODE, the PATH, or a folder node* here.
node=${NODE:-$(command -v node || ls -d "$PWD"/node*/bin/node 2> /dev/null | head -1)}
if [ -n "$node" ] && [ -d node_modules ]; then
  PATH="$(dirname "$node"):$PATH"
  step "the addon, by $("$node" --version)" node src/setup.mjs
fi
if [ -n "$node" ] && [ -f build/Release/parley.node ]; then
  step "case lists of all ops, the families' goldens, and all families on several ranks" \
    env PARLEY_TEST_ALL=1 node node_modules/vitest/vitest.mjs run --config test/vitest.config.ts test/ops test/gpu/families.test.ts test/gpu/ranks.test.ts
  step "benchmark: the engine in Node" timeout 300 node test/bench/run.mjs --device cuda
else
  echo "== ops and goldens through the addon: no Node, or no node_modules or addon here, not run"
fi

echo
echo "$failures steps failed"
exit "$((failures > 0))"
