// Checkpoints of the families that Parley serves, each with the fields of its config.json that decide about memory. Nothing is
// downloaded to plan with them. test/models/count_parameters.py counts the parameters of every row with transformers.

/** A checkpoint on Hugging Face's hub. */
export interface KnownCheckpoint {
  /** org/name */
  id: string
  /** the part of its config.json that decides about memory */
  config: Record<string, unknown>
}

type Config = Record<string, unknown>

/** Checkpoints of one architecture. `shared`: what all of them have. */
function family(architecture: string, shared: Config, checkpoints: Record<string, Config>): KnownCheckpoint[] {
  return Object.entries(checkpoints).map(([id, config]) => ({
    id,
    config: { architectures: [architecture], ...shared, ...config },
  }))
}

// The numbers of a row, in this order everywhere: width, layers, heads, key/value heads, width of the MLP's hidden layer, ids, context.
// `more`: what else decides.

const gpt = (n_embd: number, n_layer: number, n_head: number, more: Config = {}): Config => ({
  n_embd,
  n_layer,
  n_head,
  ...more,
})

const neo = (hidden_size: number, num_layers: number, num_heads: number): Config => ({
  hidden_size,
  num_layers,
  num_heads,
  attention_types: [[['global', 'local'], num_layers / 2]],
})

const bloom = (hidden_size: number, n_layer: number, n_head: number, more: Config = {}): Config => ({
  hidden_size,
  n_layer,
  n_head,
  ...more,
})

/** The MLP's hidden layer is four times as wide as the model. */
const opt = (
  hidden_size: number,
  num_hidden_layers: number,
  num_attention_heads: number,
  more: Config = {},
): Config => ({ hidden_size, num_hidden_layers, num_attention_heads, ffn_dim: 4 * hidden_size, ...more })

const usual = (
  hidden_size: number,
  num_hidden_layers: number,
  num_attention_heads: number,
  intermediate_size: number,
  more: Config = {},
): Config => ({ hidden_size, num_hidden_layers, num_attention_heads, intermediate_size, ...more })

const grouped = (
  hidden_size: number,
  num_hidden_layers: number,
  num_attention_heads: number,
  num_key_value_heads: number,
  intermediate_size: number,
  vocab_size: number,
  max_position_embeddings: number,
  more: Config = {},
): Config => ({
  hidden_size,
  num_hidden_layers,
  num_attention_heads,
  num_key_value_heads,
  intermediate_size,
  vocab_size,
  max_position_embeddings,
  ...more,
})

/** Layers: of each stack. Heads have 64 dims unless there is more to say. */
const t5 = (d_model: number, num_layers: number, num_heads: number, d_ff: number, more: Config = {}): Config => ({
  d_model,
  num_layers,
  num_heads,
  d_ff,
  d_kv: 64,
  ...more,
})

/** Gemma 3 with eyes: of its config only the text side's part. */
const gemma3 = (text: Config): Config => ({ text_config: { ...text, sliding_window: 1024 } })

const tied: Config = { tie_word_embeddings: true }

const bloomSizes: [string, Config][] = [
  ['560m', bloom(1024, 24, 16)],
  ['1b1', bloom(1536, 24, 16)],
  ['1b7', bloom(2048, 24, 16)],
  ['3b', bloom(2560, 30, 32)],
  ['7b1', bloom(4096, 30, 32)],
  ['', bloom(14336, 70, 112, { torch_dtype: 'bfloat16' })],
]

const t5Sizes: [string, Config][] = [
  ['small', t5(512, 8, 6, 1024)],
  ['base', t5(768, 12, 12, 2048)],
  ['large', t5(1024, 24, 16, 2816)],
  ['xl', t5(2048, 24, 32, 5120)],
  ['xxl', t5(4096, 24, 64, 10240)],
]

/** Checkpoints whose names differ by a size. */
function sizes(prefix: string, list: [string, Config][]): Record<string, Config> {
  return Object.fromEntries(list.map(([size, config]) => [size === '' ? prefix : `${prefix}-${size}`, config]))
}

export const knownCheckpoints: KnownCheckpoint[] = [
  ...family(
    'GPT2LMHeadModel',
    { vocab_size: 50257, n_positions: 1024, torch_dtype: 'float32' },
    {
      'distilbert/distilgpt2': gpt(768, 6, 12),
      'openai-community/gpt2': gpt(768, 12, 12),
      'openai-community/gpt2-medium': gpt(1024, 24, 16),
      'openai-community/gpt2-large': gpt(1280, 36, 20),
      'openai-community/gpt2-xl': gpt(1600, 48, 25),
    },
  ),
  ...family(
    'GPTNeoForCausalLM',
    { vocab_size: 50257, max_position_embeddings: 2048, torch_dtype: 'float32' },
    {
      'EleutherAI/gpt-neo-125m': neo(768, 12, 12),
      'EleutherAI/gpt-neo-1.3B': neo(2048, 24, 16),
      'EleutherAI/gpt-neo-2.7B': neo(2560, 32, 20),
    },
  ),
  ...family(
    'GPTJForCausalLM',
    { vocab_size: 50400, n_positions: 2048, torch_dtype: 'float32' },
    { 'EleutherAI/gpt-j-6b': gpt(4096, 28, 16, { rotary_dim: 64 }) },
  ),
  ...family(
    'CodeGenForCausalLM',
    { vocab_size: 51200, n_positions: 2048, torch_dtype: 'float16' },
    {
      'Salesforce/codegen-350M-mono': gpt(1024, 20, 16, { rotary_dim: 32 }),
      'Salesforce/codegen-2B-mono': gpt(2560, 32, 32, { rotary_dim: 64 }),
      'Salesforce/codegen-6B-mono': gpt(4096, 33, 16, { rotary_dim: 64 }),
      'Salesforce/codegen-16B-mono': gpt(6144, 34, 24, { rotary_dim: 64 }),
    },
  ),
  ...family(
    'GPTNeoXForCausalLM',
    { vocab_size: 50304, max_position_embeddings: 2048, torch_dtype: 'float16' },
    {
      'EleutherAI/pythia-70m': usual(512, 6, 8, 2048),
      'EleutherAI/pythia-160m': usual(768, 12, 12, 3072),
      'EleutherAI/pythia-410m': usual(1024, 24, 16, 4096),
      'EleutherAI/pythia-1b': usual(2048, 16, 8, 8192),
      'EleutherAI/pythia-1.4b': usual(2048, 24, 16, 8192),
      'EleutherAI/pythia-2.8b': usual(2560, 32, 32, 10240),
      'EleutherAI/pythia-6.9b': usual(4096, 32, 32, 16384, { vocab_size: 50432 }),
      'EleutherAI/pythia-12b': usual(5120, 36, 40, 20480, { vocab_size: 50688 }),
      'EleutherAI/gpt-neox-20b': usual(6144, 44, 64, 24576, { vocab_size: 50432 }),
      'databricks/dolly-v2-3b': usual(2560, 32, 32, 10240, { vocab_size: 50280, torch_dtype: 'bfloat16' }),
      'databricks/dolly-v2-7b': usual(4096, 32, 32, 16384, { vocab_size: 50280, torch_dtype: 'bfloat16' }),
      'databricks/dolly-v2-12b': usual(5120, 36, 40, 20480, { vocab_size: 50280, torch_dtype: 'bfloat16' }),
      'togethercomputer/RedPajama-INCITE-Base-3B-v1': usual(2560, 32, 32, 10240, {
        vocab_size: 50432,
        rotary_pct: 1,
        use_parallel_residual: false,
      }),
      'togethercomputer/RedPajama-INCITE-7B-Base': usual(4096, 32, 32, 16384, {
        vocab_size: 50432,
        rotary_pct: 1,
        use_parallel_residual: false,
      }),
    },
  ),
  ...family(
    'OPTForCausalLM',
    { vocab_size: 50272, max_position_embeddings: 2048, torch_dtype: 'float16' },
    {
      'facebook/opt-125m': opt(768, 12, 12),
      'facebook/opt-350m': opt(1024, 24, 16, { word_embed_proj_dim: 512, do_layer_norm_before: false }),
      'facebook/opt-1.3b': opt(2048, 24, 32),
      'facebook/opt-2.7b': opt(2560, 32, 32),
      'facebook/opt-6.7b': opt(4096, 32, 32),
      'facebook/opt-13b': opt(5120, 40, 40),
      'facebook/opt-30b': opt(7168, 48, 56),
      'facebook/opt-66b': opt(9216, 64, 72),
      'facebook/galactica-125m': opt(768, 12, 12, { vocab_size: 50000 }),
      'facebook/galactica-1.3b': opt(2048, 24, 32, { vocab_size: 50000 }),
      'facebook/galactica-6.7b': opt(4096, 32, 32, { vocab_size: 50000 }),
      'facebook/galactica-30b': opt(7168, 48, 56, { vocab_size: 50000 }),
      'facebook/galactica-120b': opt(10240, 96, 80, { vocab_size: 50000 }),
    },
  ),
  ...family(
    'BloomForCausalLM',
    { vocab_size: 250880, torch_dtype: 'float16' },
    { ...sizes('bigscience/bloom', bloomSizes), ...sizes('bigscience/bloomz', bloomSizes) },
  ),
  ...family(
    'LlamaForCausalLM',
    { torch_dtype: 'float16' },
    {
      'huggyllama/llama-7b': grouped(4096, 32, 32, 32, 11008, 32000, 2048),
      'huggyllama/llama-13b': grouped(5120, 40, 40, 40, 13824, 32000, 2048),
      'huggyllama/llama-30b': grouped(6656, 60, 52, 52, 17920, 32000, 2048),
      'huggyllama/llama-65b': grouped(8192, 80, 64, 64, 22016, 32000, 2048),
      'meta-llama/Llama-2-7b-hf': grouped(4096, 32, 32, 32, 11008, 32000, 4096),
      'meta-llama/Llama-2-13b-hf': grouped(5120, 40, 40, 40, 13824, 32000, 4096),
      'meta-llama/Llama-2-70b-hf': grouped(8192, 80, 64, 8, 28672, 32000, 4096),
    },
  ),
  ...family(
    'LlamaForCausalLM',
    { torch_dtype: 'bfloat16' },
    {
      'codellama/CodeLlama-7b-hf': grouped(4096, 32, 32, 32, 11008, 32016, 16384),
      'codellama/CodeLlama-13b-hf': grouped(5120, 40, 40, 40, 13824, 32016, 16384),
      'codellama/CodeLlama-34b-hf': grouped(8192, 48, 64, 8, 22016, 32000, 16384),
      'TinyLlama/TinyLlama-1.1B-Chat-v1.0': grouped(2048, 22, 32, 4, 5632, 32000, 2048),
      'HuggingFaceTB/SmolLM2-135M-Instruct': grouped(576, 30, 9, 3, 1536, 49152, 8192, tied),
      'HuggingFaceTB/SmolLM2-360M-Instruct': grouped(960, 32, 15, 5, 2560, 49152, 8192, tied),
      'HuggingFaceTB/SmolLM2-1.7B-Instruct': grouped(2048, 24, 32, 32, 8192, 49152, 8192, tied),
      'meta-llama/Meta-Llama-3-8B': grouped(4096, 32, 32, 8, 14336, 128256, 8192),
      'meta-llama/Meta-Llama-3-70B': grouped(8192, 80, 64, 8, 28672, 128256, 8192),
      'meta-llama/Llama-3.1-8B-Instruct': grouped(4096, 32, 32, 8, 14336, 128256, 131072),
      'meta-llama/Llama-3.1-70B-Instruct': grouped(8192, 80, 64, 8, 28672, 128256, 131072),
      'meta-llama/Llama-3.1-405B-Instruct': grouped(16384, 126, 128, 8, 53248, 128256, 131072),
      'meta-llama/Llama-3.2-1B-Instruct': grouped(2048, 16, 32, 8, 8192, 128256, 131072, tied),
      'meta-llama/Llama-3.2-3B-Instruct': grouped(3072, 28, 24, 8, 8192, 128256, 131072, tied),
      'meta-llama/Llama-3.3-70B-Instruct': grouped(8192, 80, 64, 8, 28672, 128256, 131072),
      'deepseek-ai/DeepSeek-R1-Distill-Llama-8B': grouped(4096, 32, 32, 8, 14336, 128256, 131072),
      'deepseek-ai/DeepSeek-R1-Distill-Llama-70B': grouped(8192, 80, 64, 8, 28672, 128256, 131072),
      'deepseek-ai/deepseek-coder-1.3b-instruct': grouped(2048, 24, 16, 16, 5504, 32256, 16384),
      'deepseek-ai/deepseek-coder-6.7b-instruct': grouped(4096, 32, 32, 32, 11008, 32256, 16384),
      'deepseek-ai/deepseek-coder-33b-instruct': grouped(7168, 62, 56, 8, 19200, 32256, 16384),
      '01-ai/Yi-1.5-6B-Chat': grouped(4096, 32, 32, 4, 11008, 64000, 4096),
      '01-ai/Yi-1.5-9B-Chat': grouped(4096, 48, 32, 4, 11008, 64000, 4096),
      '01-ai/Yi-1.5-34B-Chat': grouped(7168, 60, 56, 8, 20480, 64000, 4096),
    },
  ),
  ...family(
    'MistralForCausalLM',
    { sliding_window: null, torch_dtype: 'bfloat16' },
    {
      'mistralai/Mistral-7B-v0.1': grouped(4096, 32, 32, 8, 14336, 32000, 32768, { sliding_window: 4096 }),
      'mistralai/Mistral-7B-Instruct-v0.3': grouped(4096, 32, 32, 8, 14336, 32768, 32768),
      'mistralai/Mistral-Nemo-Instruct-2407': grouped(5120, 40, 32, 8, 14336, 131072, 131072, { head_dim: 128 }),
      'mistralai/Mistral-Small-24B-Instruct-2501': grouped(5120, 40, 32, 8, 32768, 131072, 32768, { head_dim: 128 }),
    },
  ),
  ...family(
    'MixtralForCausalLM',
    { num_local_experts: 8, num_experts_per_tok: 2, torch_dtype: 'bfloat16' },
    {
      'mistralai/Mixtral-8x7B-Instruct-v0.1': grouped(4096, 32, 32, 8, 14336, 32000, 32768),
      'mistralai/Mixtral-8x22B-Instruct-v0.1': grouped(6144, 56, 48, 8, 16384, 32768, 65536),
    },
  ),
  ...family(
    'Qwen2ForCausalLM',
    { torch_dtype: 'bfloat16' },
    {
      'Qwen/Qwen2.5-0.5B-Instruct': grouped(896, 24, 14, 2, 4864, 151936, 32768, tied),
      'Qwen/Qwen2.5-1.5B-Instruct': grouped(1536, 28, 12, 2, 8960, 151936, 32768, tied),
      'Qwen/Qwen2.5-3B-Instruct': grouped(2048, 36, 16, 2, 11008, 151936, 32768, tied),
      'Qwen/Qwen2.5-7B-Instruct': grouped(3584, 28, 28, 4, 18944, 152064, 32768),
      'Qwen/Qwen2.5-14B-Instruct': grouped(5120, 48, 40, 8, 13824, 152064, 32768),
      'Qwen/Qwen2.5-32B-Instruct': grouped(5120, 64, 40, 8, 27648, 152064, 32768),
      'Qwen/Qwen2.5-72B-Instruct': grouped(8192, 80, 64, 8, 29568, 152064, 32768),
      'deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B': grouped(1536, 28, 12, 2, 8960, 151936, 131072),
      'deepseek-ai/DeepSeek-R1-Distill-Qwen-7B': grouped(3584, 28, 28, 4, 18944, 152064, 131072),
      'deepseek-ai/DeepSeek-R1-Distill-Qwen-14B': grouped(5120, 48, 40, 8, 13824, 152064, 131072),
      'deepseek-ai/DeepSeek-R1-Distill-Qwen-32B': grouped(5120, 64, 40, 8, 27648, 152064, 131072),
    },
  ),
  ...family(
    'Qwen3ForCausalLM',
    {
      head_dim: 128,
      torch_dtype: 'bfloat16',
    },
    {
      'Qwen/Qwen3-0.6B': grouped(1024, 28, 16, 8, 3072, 151936, 40960, tied),
      'Qwen/Qwen3-1.7B': grouped(2048, 28, 16, 8, 6144, 151936, 40960, tied),
      'Qwen/Qwen3-4B': grouped(2560, 36, 32, 8, 9728, 151936, 40960, tied),
      'Qwen/Qwen3-8B': grouped(4096, 36, 32, 8, 12288, 151936, 40960),
      'Qwen/Qwen3-14B': grouped(5120, 40, 40, 8, 17408, 151936, 40960),
      'Qwen/Qwen3-32B': grouped(5120, 64, 64, 8, 25600, 151936, 40960),
    },
  ),
  ...family(
    'Qwen3MoeForCausalLM',
    {
      head_dim: 128,
      num_experts: 128,
      num_experts_per_tok: 8,
      torch_dtype: 'bfloat16',
    },
    {
      'Qwen/Qwen3-30B-A3B': grouped(2048, 48, 32, 4, 6144, 151936, 40960, { moe_intermediate_size: 768 }),
      'Qwen/Qwen3-235B-A22B': grouped(4096, 94, 64, 4, 12288, 151936, 40960, { moe_intermediate_size: 1536 }),
    },
  ),
  ...family(
    'GemmaForCausalLM',
    { head_dim: 256, torch_dtype: 'bfloat16' },
    {
      'google/gemma-2b-it': grouped(2048, 18, 8, 1, 16384, 256000, 8192),
      'google/gemma-7b-it': grouped(3072, 28, 16, 16, 24576, 256000, 8192),
    },
  ),
  ...family(
    'Gemma2ForCausalLM',
    { sliding_window: 4096, torch_dtype: 'bfloat16' },
    {
      'google/gemma-2-2b-it': grouped(2304, 26, 8, 4, 9216, 256000, 8192, { head_dim: 256 }),
      'google/gemma-2-9b-it': grouped(3584, 42, 16, 8, 14336, 256000, 8192, { head_dim: 256 }),
      'google/gemma-2-27b-it': grouped(4608, 46, 32, 16, 36864, 256000, 8192, { head_dim: 128 }),
    },
  ),
  ...family(
    'Gemma3ForCausalLM',
    { head_dim: 256, sliding_window: 512, torch_dtype: 'bfloat16' },
    {
      'google/gemma-3-270m-it': grouped(640, 18, 4, 1, 2048, 262144, 32768),
      'google/gemma-3-1b-it': grouped(1152, 26, 4, 1, 6912, 262144, 32768),
    },
  ),
  ...family(
    'Gemma3ForConditionalGeneration',
    { torch_dtype: 'bfloat16' },
    {
      'google/gemma-3-4b-it': gemma3(grouped(2560, 34, 8, 4, 10240, 262208, 131072, { head_dim: 256 })),
      'google/gemma-3-12b-it': gemma3(grouped(3840, 48, 16, 8, 15360, 262208, 131072, { head_dim: 256 })),
      'google/gemma-3-27b-it': gemma3(grouped(5376, 62, 32, 16, 21504, 262208, 131072, { head_dim: 128 })),
    },
  ),
  ...family(
    'PhiForCausalLM',
    { vocab_size: 51200, max_position_embeddings: 2048, torch_dtype: 'float16' },
    {
      'microsoft/phi-1': usual(2048, 24, 32, 8192),
      'microsoft/phi-1_5': usual(2048, 24, 32, 8192),
      'microsoft/phi-2': usual(2560, 32, 32, 10240, { partial_rotary_factor: 0.4 }),
    },
  ),
  ...family(
    'Phi3ForCausalLM',
    { torch_dtype: 'bfloat16' },
    {
      'microsoft/Phi-3-mini-4k-instruct': grouped(3072, 32, 32, 32, 8192, 32064, 4096, { sliding_window: 2047 }),
      'microsoft/Phi-3-medium-4k-instruct': grouped(5120, 40, 40, 10, 17920, 32064, 4096, { sliding_window: 2047 }),
      'microsoft/phi-4': grouped(5120, 40, 40, 10, 17920, 100352, 16384),
    },
  ),
  ...family(
    'Olmo2ForCausalLM',
    { torch_dtype: 'bfloat16' },
    {
      'allenai/OLMo-2-0425-1B-Instruct': grouped(2048, 16, 16, 16, 8192, 100352, 4096),
      'allenai/OLMo-2-1124-7B-Instruct': grouped(4096, 32, 32, 32, 11008, 100352, 4096),
      'allenai/OLMo-2-1124-13B-Instruct': grouped(5120, 40, 40, 40, 13824, 100352, 4096),
      'allenai/OLMo-2-0325-32B-Instruct': grouped(5120, 64, 40, 8, 27648, 100352, 4096),
    },
  ),
  ...family(
    'FalconForCausalLM',
    { vocab_size: 65024, torch_dtype: 'bfloat16' },
    {
      'tiiuae/falcon-rw-1b': opt(2048, 24, 32, {
        vocab_size: 50304,
        alibi: true,
        bias: true,
        multi_query: false,
        parallel_attn: false,
      }),
      'tiiuae/falcon-7b': opt(4544, 32, 71),
      'tiiuae/falcon-11B': opt(4096, 60, 32, {
        new_decoder_architecture: true,
        num_kv_heads: 8,
        num_ln_in_parallel_attn: 1,
        tie_word_embeddings: false,
        max_position_embeddings: 8192,
      }),
      'tiiuae/falcon-40b': opt(8192, 60, 128, { new_decoder_architecture: true, num_kv_heads: 8 }),
      'tiiuae/falcon-180B': opt(14848, 80, 232, { new_decoder_architecture: true, num_kv_heads: 8 }),
    },
  ),
  ...family(
    'StableLmForCausalLM',
    { torch_dtype: 'bfloat16' },
    {
      'stabilityai/stablelm-3b-4e1t': grouped(2560, 32, 32, 32, 6912, 50304, 4096),
      'stabilityai/stablelm-2-1_6b': grouped(2048, 24, 32, 32, 5632, 100352, 4096, {
        use_qkv_bias: true,
        torch_dtype: 'float16',
      }),
      'stabilityai/stablelm-2-12b': grouped(5120, 40, 32, 8, 13824, 100352, 4096, {
        qk_layernorm: true,
        use_parallel_residual: true,
      }),
    },
  ),
  ...family(
    'T5ForConditionalGeneration',
    { vocab_size: 32128, torch_dtype: 'float32' },
    {
      'google-t5/t5-small': t5(512, 6, 8, 2048),
      'google-t5/t5-base': t5(768, 12, 12, 3072),
      'google-t5/t5-large': t5(1024, 24, 16, 4096),
      'google-t5/t5-3b': t5(1024, 24, 32, 16384, { d_kv: 128 }),
      'google-t5/t5-11b': t5(1024, 24, 128, 65536, { d_kv: 128 }),
    },
  ),
  ...family(
    'T5ForConditionalGeneration',
    { vocab_size: 32128, feed_forward_proj: 'gated-gelu', tie_word_embeddings: false, torch_dtype: 'float32' },
    {
      ...sizes('google/flan-t5', t5Sizes),
      'bigscience/T0_3B': t5(2048, 24, 32, 5120),
      'bigscience/T0': t5(4096, 24, 64, 10240),
      'bigscience/T0pp': t5(4096, 24, 64, 10240),
    },
  ),
  ...family(
    'MT5ForConditionalGeneration',
    { vocab_size: 250112, feed_forward_proj: 'gated-gelu', tie_word_embeddings: false, torch_dtype: 'float32' },
    sizes('bigscience/mt0', t5Sizes),
  ),
]
