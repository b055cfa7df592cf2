# For a GPU at hand, without Node, in build/gpu: parley_cuda.so and the programs of test/gpu/programs, compiled by nvcc instead of
# against the emulator; and the benchmarks of test/gpu/bench.
#
#   make -C test/gpu -f device.mk ARCH=90 [CUBLAS=folder of cublasLt.h]
NVCC ?= nvcc
ARCH ?= 90
CUBLAS ?=
root := ../..
include $(root)/native/cuda/gencode.mk
out := $(root)/build/gpu
programs := $(patsubst programs/%.cu,$(out)/%,$(filter-out programs/emulator.cu,$(wildcard programs/*.cu)))
flags := -std=c++17 -O3 $(call machine_code,$(ARCH)) -fmad=false --expt-relaxed-constexpr -diag-suppress 554 -lineinfo -I $(root)/native

all: $(programs) benches models
library:
	$(MAKE) --silent -C $(root)/native/cuda OUT=../../build/gpu ARCHS=$(ARCH) CUBLAS=$(CUBLAS)
bench := $(MAKE) --silent -C bench ARCH=$(ARCH) CUBLAS=$(CUBLAS) LIBRARY=../$(out)/cuda
benches: library
	+$(bench) $(root)/../build/gpu-bench/kernels
# Has nothing of the library in it: it opens it.
models:
	+$(bench) $(root)/../build/gpu-bench/models
# A program has all of native/cuda in it.
$(programs): $(out)/%: programs/%.cu library
	$(NVCC) $(flags) $< $(out)/cuda/*.o -o $@ -ldl -lpthread

.PHONY: all library benches models
