// Generated from native/contract.def by `npm run contract`. Do not edit.

export const DTypeValues = ['float32', 'float16', 'bfloat16'] as const
export type DType = (typeof DTypeValues)[number]

export const DeviceValues = ['cpu', 'cuda'] as const
export type Device = (typeof DeviceValues)[number]

export const IsaValues = ['auto', 'baseline', 'neon', 'avx2', 'avx512', 'amx'] as const
export type Isa = (typeof IsaValues)[number]

export const RankMeetingValues = ['none', 'threads', 'peer_memory', 'host_memory', 'peer_memory_nccl', 'host_memory_nccl'] as const
export type RankMeeting = (typeof RankMeetingValues)[number]

export const ActivationValues = ['gelu', 'gelu_tanh', 'relu', 'silu'] as const
export type Activation = (typeof ActivationValues)[number]

export const TopologyValues = ['sequential', 'parallel', 'parallel_shared'] as const
export type Topology = (typeof TopologyValues)[number]

export const NormValues = ['layer', 'rms'] as const
export type Norm = (typeof NormValues)[number]

export const NormPlacementValues = ['before', 'after', 'around', 'residual'] as const
export type NormPlacement = (typeof NormPlacementValues)[number]

export const QkNormValues = ['none', 'head', 'each_head', 'whole'] as const
export type QkNorm = (typeof QkNormValues)[number]

export const RopeLayoutValues = ['half_split', 'interleaved'] as const
export type RopeLayout = (typeof RopeLayoutValues)[number]

export const TensorRoleValues = ['embedding', 'unembedding', 'unembedding_bias', 'position_embedding', 'embedding_projection', 'output_projection', 'embedding_norm_weight', 'embedding_norm_bias', 'final_norm_weight', 'final_norm_bias', 'relative_bias', 'attention_norm_weight', 'attention_norm_bias', 'attention_output_norm_weight', 'mlp_norm_weight', 'mlp_norm_bias', 'mlp_output_norm_weight', 'query_weight', 'query_bias', 'key_weight', 'key_bias', 'value_weight', 'value_bias', 'query_norm_weight', 'query_norm_bias', 'key_norm_weight', 'key_norm_bias', 'attention_out_weight', 'attention_out_bias', 'mlp_gate_weight', 'mlp_gate_bias', 'mlp_up_weight', 'mlp_up_bias', 'mlp_down_weight', 'mlp_down_bias', 'router_weight', 'expert_gate_weight', 'expert_up_weight', 'expert_down_weight', 'cross_norm_weight', 'cross_query_weight', 'cross_key_weight', 'cross_value_weight', 'cross_out_weight'] as const
export type TensorRole = (typeof TensorRoleValues)[number]

export const FinishReasonValues = ['none', 'stop', 'length', 'cancelled', 'error', 'timeout', 'exhausted'] as const
export type FinishReason = (typeof FinishReasonValues)[number]

export const PoolingValues = ['none', 'mean', 'last'] as const
export type Pooling = (typeof PoolingValues)[number]

export const EventKindValues = ['token', 'prompt', 'pooled', 'cached'] as const
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
  /** width of the embedding where a projection leads from it to the residual stream and back; 0: hidden_size (0 to 131072, default 0) */
  embedding_size: number
  /** factor of the embedding, rounded to the weights' type as the reference does (1e-6 to 1e6, default 1) */
  embedding_scale: number
  /** normalise the embedding (default false) */
  embedding_norm: boolean
  /** add a learned row for each position to the embedding (default false) */
  position_embedding: boolean
  /** radians a position of each rotated pair of dims, at the start of a head; empty: no rotation (0 to 1e6) */
  rope_frequencies: Float32Array
  /** the same for layers with a window, where they differ; else empty (0 to 1e6) */
  local_rope_frequencies: Float32Array
  /** the same for engines whose max_model_len is above long_rope_above; else empty (0 to 1e6) */
  long_rope_frequencies: Float32Array
  /** longest sequence that rope_frequencies are for, where there are long_rope_frequencies (0 to 16777216, default 0) */
  long_rope_above: number
  /** factor of the cosines and sines of rope_frequencies and long_rope_frequencies (1e-3 to 1e3, default 1) */
  rope_scale: number
  /** pairs of n rotated dims: half_split (i, i + n/2), interleaved (2i, 2i + 1); default half_split */
  rope_layout: RopeLayout
  /** one a head: each key's score falls by this for each position of distance; empty: none (0 to 1e3) */
  alibi_slopes: Float32Array
  /** Falcon's ALiBi: slope * key's position, rounded to bfloat16, is added to the product before the scale (default false) */
  alibi_in_bfloat16: boolean
  /** one a layer: keys that a token sees there, itself included; 0: all; empty: all in every layer (0 to 16777216) */
  layer_windows: Int32Array
  /** factor of the attention scores, usually 1/sqrt(head_dim) (1e-6 to 1e6, required) */
  attention_scale: number
  /** layer i divides attention_scale by i + 1 (default false) */
  attention_scale_by_layer: boolean
  /** scores become cap tanh(score / cap); 0: they stay (0 to 1e6, default 0) */
  attention_softcap: number
  /** logits become cap tanh(logit / cap); 0: they stay (0 to 1e6, default 0) */
  logit_softcap: number
  /** of queries and keys before the rotation: head: one norm for all heads. each_head: its own. whole: of the row; default none */
  qk_norm: QkNorm
  /** layer: (x - mean) / sqrt(variance + eps). rms: x / sqrt(mean of squares + eps); default layer */
  norm: Norm
  /** epsilon inside the norms' square root (0 to 1, default 1e-5) */
  norm_eps: number
  /** before: h += F(N h). after: h += N(F h). around: both. residual: h = N(h + F h); default before */
  norm_placement: NormPlacement
  /** normalise before the unembedding (default true) */
  final_norm: boolean
  /** sequential: h += A h; h += M h. parallel: h += A h + M h, each with its norm or with a shared one; default sequential */
  topology: Topology
  /** of the MLP's hidden layer; default gelu */
  activation: Activation
  /** the hidden layer is activation(gate) * up instead of activation(up) (default false) */
  gated_mlp: boolean
  /** gated MLPs in a block, of which a router chooses some for each token; 0: one MLP for all tokens (0 to 1024, default 0) */
  num_experts: number
  /** experts that a token is given to (0 to 1024, default 0) */
  num_experts_per_tok: number
  /** width of an expert's hidden layer (0 to 1048576, default 0) */
  moe_intermediate_size: number
  /** a token's shares of its experts, their probabilities among all, are divided by their sum (default false) */
  norm_topk_prob: boolean
  /** blocks that have one MLP of intermediate_size in spite of num_experts (0 to 1023) */
  dense_layers: Int32Array
  /** factor of the hidden states before the unembedding (1e-6 to 1e6, default 1) */
  unembedding_scale: number
  /** blocks of the encoder, which reads the prompt for the decoder; 0: the decoder reads it itself (0 to 1024, default 0) */
  num_encoder_layers: number
  /** where there is an encoder: the token before the decoder's first (0 to 4194303, default 0) */
  decoder_start_token: number
  /** rows of a learned table of biases of attention scores by distance, one table a stack; 0: none (0 to 4096, default 0) */
  relative_buckets: number
  /** the distances from here on share the last of the buckets (1 to 16777216, default 128) */
  relative_max_distance: number
  /** the unembedding is the embedding (default false) */
  tie_word_embeddings: boolean
}

/** where one canonical tensor's numbers lie in the checkpoint; matrices are [rows, cols], vectors have cols 1 */
export interface TensorSource {
  /** which tensor of the model; default embedding */
  role: TensorRole
  /** the encoder's tensor of this role instead of the decoder's (default false) */
  encoder: boolean
  /** decoder block; 0 for tensors outside the blocks (0 to 1023, default 0) */
  layer: number
  /** which of the tensors that share a role: an expert, or the head of a norm that each head has for itself (0 to 1023, default 0) */
  part: number
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
  /** the file has the matrix as [cols, stored_rows] (default false) */
  transposed: boolean
  /** added to every number of a vector; 1 for norms that store their weight's distance from 1 (-1e3 to 1e3, default 0) */
  addend: number
}

/** how the engine runs; from the command line's options and the machine */
export interface EngineOptions {
  /** type of weights and KV pages in memory; arithmetic is float32; default float16 */
  dtype: DType
  /** what computes: the CPU, or NVIDIA GPUs, of which each rank has the next; where they are fewer than ranks, some share one; default cpu */
  device: Device
  /** on a GPU: a request's bits never depend on who else is in its steps, as on the CPU; false allows faster products (default true) */
  deterministic: boolean
  /** instruction set of the CPU kernels; auto_: the best that this machine has for the dtype; default auto */
  isa: Isa
  /** threads that compute; several ranks share them, each has one at least (1 to 1024, default 1) */
  num_threads: number
  /** ranks, each with a part of every layer; at most as many as the model has heads (1 to 64, default 1) */
  tensor_parallel_size: number
  /** number of the GPU that the first rank has (0 to 1023, default 0) */
  first_gpu: number
  /** a rank has stopped if it has not moved for so long while others waited for it (8 to 86400000, default 4000) */
  rank_stopped_after_ms: number
  /** one that has no other ranks to miss it has stopped if it has not done a step in so long (8 to 86400000, default 60000) */
  gpu_stopped_after_ms: number
  /** for tests: the last rank stops for good in this step; 0: never (0 to 9007199254740991, default 0) */
  rank_stops_in_step: number
  /** longest request, prompt and completion together, in tokens (1 to 16777216, required) */
  max_model_len: number
  /** requests that run at the same time (1 to 4096, default 64) */
  max_num_seqs: number
  /** tokens computed in one step, at most (1 to 1048576, default 512) */
  max_num_batched_tokens: number
  /** requests that wait (0 to 1048576, default 1024) */
  max_queue: number
  /** how long a request may wait to be begun; 0: for ever (0 to 86400000, default 0) */
  max_queue_ms: number
  /** memory for KV pages (1 to 70368744177664, required) */
  kv_cache_bytes: number
  /** read long prompts in slices between the tokens of others; false: as much in a step as the budget allows, whatever it takes (default true) */
  pace_prompts: boolean
  /** keep the pages of ended requests, and let later ones with the same beginning use them (default true) */
  prefix_caching: boolean
  /** for tests: compare the pages with their holders before each step and the ranks' results behind it, and fail the step if they differ (default false) */
  check_integrity: boolean
  /** for tests of one rank: whatever touches the memory of ops, except an op, is stopped by the system, and steps are filled up and follow each other as on a GPU (default false) */
  guard_memory: boolean
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
  /** who is served first and gives way last: the lower number, then the earlier arrival (-2147483648 to 2147483647, default 0) */
  priority: number
  /** tokens that may wait for the reader; then the request pauses until he acknowledges some; 0: any number (0 to 16777216, default 0) */
  max_unread: number
  /** only requests with the same salt share pages of the prefix cache (0 to 9007199254740991, default 0) */
  cache_salt: number
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

/** facts of a loaded engine; memory is of all ranks together */
export interface EngineInfo {
  /** numbers in the checkpoint's tensors that are used */
  num_parameters: number
  /** memory of the weights: packed matrices, and vectors in float32 */
  weight_bytes: number
  /** memory of the KV pages */
  kv_cache_bytes: number
  /** memory of all that is computed between a step's tokens and its logits */
  workspace_bytes: number
  /** KV pages */
  num_pages: number
  /** tokens in a page */
  page_size: number
  /** longest request in tokens, after fitting it to the pages */
  max_model_len: number
  /** threads that compute */
  num_threads: number
  /** ranks */
  tensor_parallel_size: number
  /** how ranks add up: as threads; by kernels of GPUs through each other's memory or the host's, and what is large by NCCL; default none */
  rank_meeting: RankMeeting
  /** what computes; default cpu */
  device: Device
  /** instruction set of the CPU kernels; default auto */
  isa: Isa
  /** type of weights and KV pages; default float16 */
  dtype: DType
}

/** what an engine would take, known before its weights are; of all ranks together */
export interface MemoryPlan {
  /** packed matrices; vectors come on top of them in EngineInfo's weight_bytes */
  matrix_bytes: number
  /** a KV page, keys and values of all layers */
  page_bytes: number
  /** tokens in a page */
  page_size: number
  /** KV pages */
  num_pages: number
  /** longest request in tokens, after fitting it to the pages */
  max_model_len: number
  /** as in EngineInfo */
  workspace_bytes: number
  /** of these, what the ops hold between calls */
  scratch_bytes: number
  /** matrix_bytes of the rank that has most */
  rank_matrix_bytes: number
  /** page_bytes of the rank that has most */
  rank_page_bytes: number
  /** workspace_bytes of the rank that has most */
  rank_workspace_bytes: number
}

/** counters and gauges, read once a scrape */
export interface EngineStats {
  /** requests with KV pages */
  num_requests_running: number
  /** requests in the queue */
  num_requests_waiting: number
  /** requests whose reader is behind; they have no seat, and pages only as long as nobody else needs them */
  num_requests_paused: number
  /** requests that may still come; below 0 where a call has brought more */
  num_queue_places: number
  /** KV pages in use */
  num_pages_used: number
  /** KV pages */
  num_pages: number
  /** steps run */
  num_steps: number
  /** processor time that the engine's thread has spent in steps beside computing them */
  bookkeeping_ms: number
  /** times that a request lost its pages to others */
  num_preemptions: number
  /** tokens of the prompts that were read, cached ones among them */
  num_prompt_tokens: number
  /** tokens of the prompts that were looked for in the prefix cache */
  num_prefix_queries: number
  /** of these, found */
  num_prefix_hits: number
  /** tokens sampled */
  num_generation_tokens: number
  /** memory that the ops hold between calls: no more than was planned (MemoryPlan) */
  scratch_bytes: number
  /** above 0: a rank or a GPU has stopped, and the engine will compute nothing any more */
  num_stopped_ranks: number
  /** time since the engine thread last made progress, 0 when idle */
  step_age_ms: number
}
