// Generated from native/contract.def by `npm run contract`. Do not edit.

export const DTypeValues = ['float32', 'float16', 'bfloat16'] as const
export type DType = (typeof DTypeValues)[number]

export const IsaValues = ['auto', 'baseline', 'avx2', 'avx512'] as const
export type Isa = (typeof IsaValues)[number]

export const ActivationValues = ['gelu', 'gelu_tanh', 'relu'] as const
export type Activation = (typeof ActivationValues)[number]

export const TopologyValues = ['sequential', 'parallel'] as const
export type Topology = (typeof TopologyValues)[number]

export const TensorRoleValues = ['embedding', 'unembedding', 'final_norm_weight', 'final_norm_bias', 'input_norm_weight', 'input_norm_bias', 'post_attention_norm_weight', 'post_attention_norm_bias', 'query_weight', 'query_bias', 'key_weight', 'key_bias', 'value_weight', 'value_bias', 'attention_out_weight', 'attention_out_bias', 'mlp_up_weight', 'mlp_up_bias', 'mlp_down_weight', 'mlp_down_bias'] as const
export type TensorRole = (typeof TensorRoleValues)[number]

export const FinishReasonValues = ['none', 'stop', 'length', 'cancelled', 'error'] as const
export type FinishReason = (typeof FinishReasonValues)[number]

export const PoolingValues = ['none', 'mean', 'last'] as const
export type Pooling = (typeof PoolingValues)[number]

export const EventKindValues = ['token', 'prompt', 'pooled'] as const
export type EventKind = (typeof EventKindValues)[number]

/** what the one decoder needs to know of a model; built by src/models from config.json and the tensor headers */
export interface ModelSpec {
  /** rows of the embedding (1 to 4194304, required) */
  vocab_size: number
  /** ids that sampling may choose: the tokenizer's; padded rows above stay in the softmax (1 to 4194304, required) */
  num_sampled_ids: number
  /** width of the residual stream (1 to 131072, required) */
  hidden_size: number
  /** decoder blocks (1 to 1024, required) */
  num_layers: number
  /** query heads (1 to 1024, required) */
  num_heads: number
  /** key/value heads; divides num_heads (1 to 1024, required) */
  num_kv_heads: number
  /** width of a head (1 to 1024, required) */
  head_dim: number
  /** width of the MLP's hidden layer (1 to 1048576, required) */
  intermediate_size: number
  /** positions that the model was trained for (1 to 16777216, required) */
  max_position: number
  /** leading dims of a head that are rotated, half-split pairs (i, i + rope_dims/2); even; 0: none (0 to 1024, default 0) */
  rope_dims: number
  /** base of the rotary frequencies (1 to 1e12, default 10000) */
  rope_theta: number
  /** epsilon inside the LayerNorm's square root (0 to 1, default 1e-5) */
  norm_eps: number
  /** factor of the attention scores, usually 1/sqrt(head_dim) (1e-6 to 1e6, required) */
  attention_scale: number
  /** between the two matrices of the MLP; default gelu */
  activation: Activation
  /** sequential: h += A(N1 h); h += M(N2 h). parallel: h += A(N1 h) + M(N2 h); default sequential */
  topology: Topology
  /** the unembedding is the embedding (default false) */
  tie_word_embeddings: boolean
}

/** where one canonical tensor's numbers lie in the checkpoint; matrices are [rows, cols], vectors have cols 1 */
export interface TensorSource {
  /** which tensor of the decoder; default embedding */
  role: TensorRole
  /** decoder block; 0 for tensors outside the blocks (0 to 1023, default 0) */
  layer: number
  /** type of the stored numbers; default float32 */
  dtype: DType
  /** index into EngineOptions' list of files (0 to 65535, required) */
  file: number
  /** byte offset of the stored tensor in its file (0 to 1125899906842624, required) */
  offset: number
  /** rows of the tensor as it is stored (1 to 1073741824, required) */
  stored_rows: number
  /** columns, stored and canonical (1 to 1073741824, required) */
  cols: number
  /** first stored row that belongs to this tensor (0 to 1073741824, default 0) */
  first_row: number
  /** consecutive stored rows taken at a time; with a fused per-head QKV this is head_dim (1 to 1073741824, required) */
  group_rows: number
  /** stored rows from the start of one group to the start of the next (1 to 1073741824, required) */
  group_stride: number
  /** groups; canonical rows = group_rows * num_groups (1 to 1073741824, default 1) */
  num_groups: number
}

/** how the engine runs; from the command line's options and the machine */
export interface EngineOptions {
  /** type of weights and KV pages in memory; arithmetic is float32; default float16 */
  dtype: DType
  /** instruction set of the CPU kernels; auto_: the best that this machine has; default auto */
  isa: Isa
  /** threads that compute, the engine's own among them (1 to 1024, default 1) */
  num_threads: number
  /** longest request, prompt and completion together, in tokens (1 to 16777216, required) */
  max_model_len: number
  /** requests that run at the same time (1 to 4096, default 64) */
  max_num_seqs: number
  /** tokens computed in one step, at most (1 to 1048576, default 512) */
  max_num_batched_tokens: number
  /** memory for KV pages (1 to 70368744177664, required) */
  kv_cache_bytes: number
}

/** how one request's tokens are chosen; OpenAI's field names */
export interface SamplingParams {
  /** completion tokens, at most; 0: the prompt is computed and nothing chosen (0 to 16777216, required) */
  max_tokens: number
  /** 0: greedy, the lowest id among equals (0 to 100, default 1) */
  temperature: number
  /** keep the most probable tokens whose probabilities reach this sum; 0 keeps one (0 to 1, default 1) */
  top_p: number
  /** keep this many of the most probable tokens; 0: all (0 to 4194304, default 0) */
  top_k: number
  /** keep tokens at least this probable relative to the most probable (0 to 1, default 0) */
  min_p: number
  /** subtracted from the logit of each token already generated (-2 to 2, default 0) */
  presence_penalty: number
  /** subtracted once for each time the token was generated (-2 to 2, default 0) */
  frequency_penalty: number
  /** logits of tokens of prompt and completion are divided by it if positive, multiplied if negative (1e-3 to 1000, default 1) */
  repetition_penalty: number
  /** of the counter-based random numbers (0 to 9007199254740991, default 0) */
  seed: number
  /** which of the n choices of a request this is; together with the seed and the position it names a random number (0 to 65535, default 0) */
  choice: number
  /** most probable tokens reported beside each chosen one; -1: no log-probabilities at all (-1 to 32, default -1) */
  num_logprobs: number
  /** completion tokens before one that ends it may be chosen (0 to 16777216, default 0) */
  min_tokens: number
  /** most probable tokens reported beside each token of the prompt but the first; -1: nothing about the prompt (-1 to 32, default -1) */
  num_prompt_logprobs: number
  /** report the mean or the last of the prompt's hidden states behind the final norm; only with max_tokens 0; default none */
  pooling: Pooling
  /** do not end at eos_token_ids (default false) */
  ignore_eos: boolean
  /** the model's ids that end a completion (0 to 4194303) */
  eos_token_ids: Int32Array
  /** the request's ids that end the completion (0 to 4194303) */
  stop_token_ids: Int32Array
  /** the only tokens that may be chosen; empty: all (0 to 4194303) */
  allowed_token_ids: Int32Array
  /** token sequences that the completion may not hold, one after the other (0 to 4194303) */
  bad_word_ids: Int32Array
  /** tokens in each of these sequences (1 to 4194304) */
  bad_word_sizes: Int32Array
  /** tokens whose log-probabilities are reported in place of the most probable ones'; at most 32 (0 to 4194303) */
  logprob_token_ids: Int32Array
  /** tokens with a logit bias (0 to 4194303) */
  bias_ids: Int32Array
  /** their biases, same length (-100 to 100) */
  bias_values: Float32Array
}

/** facts of a loaded engine */
export interface EngineInfo {
  /** numbers in the checkpoint's tensors that are used */
  num_parameters: number
  /** memory of the packed weights */
  weight_bytes: number
  /** memory of the KV pages */
  kv_cache_bytes: number
  /** KV pages */
  num_pages: number
  /** tokens in a page */
  page_size: number
  /** longest request in tokens, after fitting it to the pages */
  max_model_len: number
  /** threads that compute */
  num_threads: number
  /** instruction set in use; default auto */
  isa: Isa
  /** type of weights and KV pages; default float16 */
  dtype: DType
}

/** counters and gauges, read once a scrape */
export interface EngineStats {
  /** requests with KV pages */
  num_requests_running: number
  /** requests in the queue */
  num_requests_waiting: number
  /** KV pages in use */
  num_pages_used: number
  /** KV pages */
  num_pages: number
  /** steps run */
  num_steps: number
  /** requests put back into the queue because pages ran out */
  num_preemptions: number
  /** prompt tokens computed, recomputation after a preemption not counted */
  num_prompt_tokens: number
  /** tokens sampled */
  num_generation_tokens: number
  /** time since the engine thread last made progress, 0 when idle */
  step_age_ms: number
}
