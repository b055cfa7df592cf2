// What a model folder is: everything that the engine and the text side need, and nothing of where it came from.

import type { DType, ModelSpec, TensorSource } from '../engine/contract.js'
import type { Tokenizer } from './tokenizer.js'

/** What config.json alone tells of a model, before its weights are there. */
export interface ModelOutline {
  /** Hugging Face's name of the architecture, such as GPTNeoXForCausalLM. */
  architecture: string
  spec: ModelSpec
  /** Type of the stored matrices: what `--dtype auto` means (float32 checkpoints become float16). */
  checkpointDtype: DType
  /** Why float16 gives wrong numbers, or null where it does not: `--dtype auto` then means bfloat16. */
  float16Problem: string | null
  num_parameters: number
  /** Those of norms and biases, which are kept in float32. */
  num_vector_parameters: number
}

/** What a loaded model folder is. */
export interface Model extends ModelOutline {
  /** Last part of the folder's path: the default id in the API. */
  name: string
  folder: string
  /** Seconds since 1970 of the checkpoint's newest file: `created` in /v1/models. */
  created: number
  tensors: TensorSource[]
  /** Absolute paths, indexed by TensorSource.file. */
  files: string[]
  tokenizer: Tokenizer
  /** Jinja source, or null for a base model. */
  chatTemplate: string | null
  /** Special tokens by the names that templates have for them, such as bos_token. */
  templateTokens: Record<string, string>
  /** Ids that end a completion. */
  stopTokenIds: number[]
  /** Defaults of generation_config.json; a request's own fields win. */
  generationDefaults: {
    temperature?: number
    top_p?: number
    top_k?: number
    min_p?: number
    repetition_penalty?: number
    /** tokens of a chat's answer */
    max_tokens?: number
  }
  /** What the person who starts the server should know, one line each: ignored tensors, guesses that had to be made. */
  warnings: string[]
}
