# One addon, parley.node. The CPU kernels are compiled once per instruction set, each with its own flags, and chosen at run time.
{
  "variables": {
    # node-gyp build -- -Dsanitize=address | thread | undefined; see CONTRIBUTING.md
    "sanitize%": "",
    "warnings": ["-Wall", "-Wextra", "-Werror=return-type"],
    "kernel_sources": ["native/cpu/kernels/all.cc"],
    # GCC up to 12 warns of its own AVX-512 header's undefined registers (its bug 105593).
    "avx512_flags": ["-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx2", "-mfma", "-mf16c", "-mprefer-vector-width=512",
                     "-Wno-uninitialized", "-Wno-maybe-uninitialized"],
    "amx_flags": ["-mavx512bf16", "-mamx-tile", "-mamx-bf16"],
    # Compilers older than GCC 11 and Clang 11 know no AMX.
    "amx%": "<!(echo | ${CXX:-g++} -mavx512bf16 -mamx-tile -mamx-bf16 -x c++ -E - >/dev/null 2>&1 && echo yes || echo no)",
  },
  "target_defaults": {
    "include_dirs": ["native"],
    "cflags_cc": ["-std=c++17", "-O3", "-fvisibility=hidden", "-ffp-contract=off", "<@(warnings)"],
    "cflags_cc!": ["-fno-exceptions", "-std=gnu++17", "-std=gnu++20", "-fno-rtti"],
    "cflags!": ["-fno-exceptions"],
    "cflags": ["-fPIC"],
    "xcode_settings": {
      "GCC_ENABLE_CPP_EXCEPTIONS": "YES",
      "CLANG_CXX_LANGUAGE_STANDARD": "c++17",
      "OTHER_CPLUSPLUSFLAGS": ["-O3", "-ffp-contract=off", "-fvisibility=hidden"],
    },
    "conditions": [
      ["sanitize!=''", {
        "cflags_cc": ["-fsanitize=<(sanitize)", "-fno-omit-frame-pointer", "-g"],
        "ldflags": ["-fsanitize=<(sanitize)"],
      }],
    ],
  },
  "targets": [
    {
      "target_name": "parley",
      "sources": [
        "native/binding/addon.cc",
        "native/binding/engine_object.cc",
        "native/binding/file_lock.cc",
        "native/binding/gpus.cc",
        "native/binding/read_contract.cc",
        "native/binding/test_ops.cc",
        "native/binding/test_pace.cc",
        "native/binding/test_ranks.cc",
        "native/engine/engine.cc",
        "native/engine/events.cc",
        "native/engine/page_pool.cc",
        "native/engine/prefill_pace.cc",
        "native/engine/prefix_index.cc",
        "native/engine/request_pages.cc",
        "native/engine/scheduler.cc",
        "native/engine/step_builder.cc",
        "native/model/checked.cc",
        "native/model/decoder.cc",
        "native/model/device.cc",
        "native/model/encoder.cc",
        "native/model/memory.cc",
        "native/model/rank_group.cc",
        "native/model/rank_threads.cc",
        "native/model/shard.cc",
        "native/model/step_lists.cc",
        "native/model/weights.cc",
        "native/model/worker.cc",
        "native/model/block.cc",
        "native/ops/shared_collective.cc",
        "native/cpu/cpu_backend.cc",
        "native/cpu/isa.cc",
        "native/cpu/thread_pool.cc",
        "native/cpu/calibrate.cc",
        "native/cuda/cuda_library.cc",
      ],
      "include_dirs": ["<!(node -p \"require('node-addon-api').include_dir\")"],
      "defines": ["NAPI_VERSION=8", "NODE_ADDON_API_CPP_EXCEPTIONS"],
      "dependencies": ["kernels_baseline"],
      "libraries": ["-lpthread", "-ldl"],
      "conditions": [
        ["target_arch=='x64'", {"dependencies": ["kernels_avx2", "kernels_avx512"]}],
        ["target_arch=='x64' and amx=='yes'", {"dependencies": ["kernels_amx"], "defines": ["PARLEY_AMX"]}],
        ["target_arch=='arm64'", {"dependencies": ["kernels_neon"]}],
      ],
    },
    {
      "target_name": "kernels_baseline",
      "type": "static_library",
      "sources": ["<@(kernel_sources)"],
      "defines": ["PARLEY_ISA=baseline"],
    },
  ],
  "conditions": [
    ["target_arch=='arm64'", {
      "targets": [
        {
          "target_name": "kernels_neon",
          "type": "static_library",
          "sources": ["<@(kernel_sources)"],
          "defines": ["PARLEY_ISA=neon"],
        },
      ],
    }],
    ["target_arch=='x64'", {
      "targets": [
        {
          "target_name": "kernels_avx2",
          "type": "static_library",
          "sources": ["<@(kernel_sources)"],
          "defines": ["PARLEY_ISA=avx2"],
          "cflags_cc": ["-mavx2", "-mfma", "-mf16c"],
          "xcode_settings": {"OTHER_CPLUSPLUSFLAGS": ["-mavx2", "-mfma", "-mf16c"]},
        },
        {
          "target_name": "kernels_avx512",
          "type": "static_library",
          "sources": ["<@(kernel_sources)"],
          "defines": ["PARLEY_ISA=avx512"],
          "cflags_cc": ["<@(avx512_flags)"],
          "xcode_settings": {"OTHER_CPLUSPLUSFLAGS": ["<@(avx512_flags)"]},
        },
      ],
    }],
    ["target_arch=='x64' and amx=='yes'", {
      "targets": [
        {
          "target_name": "kernels_amx",
          "type": "static_library",
          "sources": ["<@(kernel_sources)"],
          "defines": ["PARLEY_ISA=amx"],
          "cflags_cc": ["<@(avx512_flags)", "<@(amx_flags)"],
          "xcode_settings": {"OTHER_CPLUSPLUSFLAGS": ["<@(avx512_flags)", "<@(amx_flags)"]},
        },
      ],
    }],
  ],
}
