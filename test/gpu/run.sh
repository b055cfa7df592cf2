#!/usr/bin/env bash
# Everything that a GPU can show, on a bare machine: CUDA toolkit, g++, make and Python; no Node, no network. Nothing outside of build/ is
# written. What it prints, with date and GPU, is kept as RESULTS.md.
#
#   test/gpu/run.sh [OUT]     OUT: a folder for the results; build/gpu-results without it
#
# With Node at hand and the packages installed, the case lists of test/ops, the families' goldens and the engine's benchmark run on the GPU
# too; with torch and transformers, one of the same shapes in transformers.
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
  local start=$SECONDS
  if "$@"; then echo "-- done, $((SECONDS - start)) s"; else
    echo "-- FAILED (exit code $?), $((SECONDS - start)) s"
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
  if [ -f "$program" ]; then step "kernels: $(basename "$program")" timeout 60 "$program"; fi
done
step "benchmark: kernels" bash -o pipefail -c 'timeout 300 build/gpu-bench/kernels | tee "$0"' "$out/kernels.txt"
# Floors are made of what was measured just now: reads, and the faster product of large matrices.
gbps=$(sed -nE 's/^reading .*: ([0-9.]+) GB\/s$/\1/p' "$out/kernels.txt")
tflops=$(grep '^multiplying' "$out/kernels.txt" | grep -oE '[0-9.]+ TFLOP' | cut -d' ' -f1 | sort -gr | head -1)
export PARLEY_CUDA_LIBRARY="$PWD/build/gpu/parley_cuda.so"
rates=(--gbps "$gbps" --tflops "$tflops" --device cuda)
# KV pages for all batches and contexts: 128 x 1,024 tokens of the largest model, or what the GPU has room for.
kv_gb=$(nvidia-smi --query-gpu=memory.total --format=csv,noheader,nounits | awk '{ free = $1 / 1000 - 48; print (free > 72 ? 72 : free > 8 ? free : 8); exit }')
for model in Pythia-410M Pythia-1.4B Pythia-6.9B GPT-J-6B GPT-NeoX-20B; do  # each in a process of its own, which has a first token
  step "benchmark: $model" timeout 300 build/gpu-bench/models "${rates[@]}" --kv-gb "$kv_gb" --models "$model"
done
step "benchmark: Pythia-6.9B, --deterministic" timeout 300 build/gpu-bench/models "${rates[@]}" --kv-gb "$kv_gb" --models Pythia-6.9B --deterministic yes
gpus=$(nvidia-smi --list-gpus | wc -l)
for ranks in 2 4 8; do
  if [ "$ranks" -le "$gpus" ]; then
    step "benchmark: models, $ranks ranks on $gpus GPUs" timeout 300 build/gpu-bench/models "${rates[@]}" --ranks "$ranks" --models Pythia-1.4B,GPT-NeoX-20B
  fi
done

# A Node that lies at hand: NODE, the PATH, or a folder node* here.
node=${NODE:-$(command -v node || ls -d "$PWD"/node*/bin/node 2> /dev/null | head -1)}
if [ -n "$node" ] && [ -d node_modules ]; then
  PATH="$(dirname "$node"):$PATH"
  step "the addon, by $("$node" --version)" node src/setup.mjs
fi
test_addon() {
  PARLEY_TEST_ALL=1 timeout 200 node node_modules/vitest/vitest.mjs run --config test/vitest.config.ts test/ops test/gpu/families.test.ts \
    test/gpu/ranks.test.ts > "$out/addon.txt" 2>&1
  local result=$?
  grep -aE ' (FAIL|Test Files|Tests|Duration) |Error:' "$out/addon.txt" | head -40
  return $result
}
if [ -n "$node" ] && [ -f build/Release/parley.node ]; then
  step "case lists of all ops, the families' goldens, and all families on several ranks" test_addon
  step "benchmark: the engine in Node" timeout 120 node test/bench/run.mjs --device cuda --kernels build/gpu-bench/kernels --shape pythia-1.4b --rounds 3
else
  echo "== ops and goldens through the addon: no Node, or no node_modules or addon here, not run"
fi

# sanitize: what compute-sanitizer's tools find in the programs, all at once; `few`: of their cases, where they have very many.
sanitize() {
  local names=() running=() failed=0 name found
  for name in {memcheck,racecheck,synccheck}-{linear,attention,experts,step_graphs}; do
    timeout 150 compute-sanitizer --tool "${name%-*}" --error-exitcode 9 "build/gpu/${name#*-}" few > "$out/$name.txt" 2>&1 &
    names+=("$name")
    running+=($!)
  done
  for i in "${!names[@]}"; do
    wait "${running[i]}"
    case $? in
      0) echo "${names[i]}: $(tail -1 "$out/${names[i]}.txt")" ;;
      124)
        found=$(grep -cE '^========= (Error|Warning|Invalid)' "$out/${names[i]}.txt")
        echo "${names[i]}: NOT FINISHED in 150 seconds, $found found until then"
        if [ "$found" != 0 ]; then failed=1; fi
        ;;
      *) tail -40 "$out/${names[i]}.txt" && failed=1 ;;
    esac
  done
  return $failed
}
if command -v compute-sanitizer > /dev/null; then
  step "compute-sanitizer" sanitize
else
  echo "== compute-sanitizer: not here, nothing was checked by it"
fi
if python3 -c 'import torch, transformers; assert torch.cuda.is_available()' 2> /dev/null; then
  step "a peer: transformers" timeout 100 python3 test/gpu/bench/peer_transformers.py --gbps "$gbps" --tflops "$tflops" --models Pythia-6.9B \
    --batches 1,128 --requests 128
fi

echo
echo "$failures steps failed"
exit "$((failures > 0))"
