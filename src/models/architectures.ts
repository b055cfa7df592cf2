// THE table of architectures: one row per Hugging Face class. A row says how config.json becomes a ModelSpec and under which names,
// and in which order of rows, a checkpoint stores the decoder's tensors. Rows of one lineage stand in one file of families/.

import type { Architecture } from './architecture.js'
import { bloom, falcon } from './families/bloom.js'
import { gemma, gemma2, gemma3, gemma3WithVision } from './families/gemma.js'
import { codeGen, gpt2, gptJ, gptNeo } from './families/gpt.js'
import { gptNeox } from './families/gpt_neox.js'
import { llama, mistral, qwen2, qwen3 } from './families/llama.js'
import { olmo2, stableLm } from './families/llama_kin.js'
import { mixtral, qwen3Moe } from './families/mixture.js'
import { opt } from './families/opt.js'
import { phi, phi3 } from './families/phi.js'
import { mt5, t5 } from './families/t5.js'
import type { Fields } from './fields.js'
import { list, ModelError } from './model-error.js'

export const architectures: Record<string, Architecture> = {
  BloomForCausalLM: bloom,
  CodeGenForCausalLM: codeGen,
  FalconForCausalLM: falcon,
  GemmaForCausalLM: gemma,
  Gemma2ForCausalLM: gemma2,
  Gemma3ForCausalLM: gemma3,
  Gemma3ForConditionalGeneration: gemma3WithVision,
  GPT2LMHeadModel: gpt2,
  GPTJForCausalLM: gptJ,
  GPTNeoForCausalLM: gptNeo,
  GPTNeoXForCausalLM: gptNeox,
  LlamaForCausalLM: llama,
  MistralForCausalLM: mistral,
  MixtralForCausalLM: mixtral,
  Olmo2ForCausalLM: olmo2,
  OPTForCausalLM: opt,
  PhiForCausalLM: phi,
  Phi3ForCausalLM: phi3,
  Qwen2ForCausalLM: qwen2,
  Qwen3ForCausalLM: qwen3,
  Qwen3MoeForCausalLM: qwen3Moe,
  StableLmForCausalLM: stableLm,
  T5ForConditionalGeneration: t5,
  MT5ForConditionalGeneration: mt5,
}

/** The row for a config.json. */
export function architectureOf(config: Fields): { name: string; row: Architecture } {
  const supported = Object.keys(architectures)
  const named = config.raw('architectures')
  if (named !== undefined) {
    if (!Array.isArray(named) || named.length === 0 || !named.every((name) => typeof name === 'string')) {
      throw config.error('architectures', 'a list of class names')
    }
    const name = named.find((candidate) => Object.hasOwn(architectures, candidate))
    const row = name === undefined ? undefined : architectures[name]
    if (name !== undefined && row !== undefined) return { name, row }
    throw config.error('architectures', `a supported one (${supported.join(', ')})`)
  }
  const modelType = config.text('model_type')
  const found = Object.entries(architectures).find(([, row]) => row.modelType === modelType)
  if (found !== undefined) return { name: found[0], row: found[1] }
  if (modelType === undefined)
    throw config.error('architectures', `a list with a supported class (${supported.join(', ')})`)
  throw config.error(
    'model_type',
    `one of ${list(
      Object.values(architectures).map((row) => row.modelType),
      40,
    )}`,
  )
}

/** Features that change the numbers in every architecture and are not built yet. */
export function refuseUnbuilt(config: Fields): void {
  if (config.has('quantization_config')) {
    throw new ModelError(
      `${config.file}: quantization_config: expected none (quantized checkpoints are not built yet), found one`,
    )
  }
}
