// Rotary frequencies: every spelling and scaling of config.json becomes a list of radians a position, one for each pair of dims.
// Formulas: transformers' modeling_rope_utils.py. Arithmetic is rounded to float32 where the reference's tensors are.

import type { ModelSpec } from '../engine/contract.js'
import type { Fields } from './fields.js'
import { list } from './model-error.js'

const { fround } = Math

type RopeSpec = Pick<ModelSpec, 'rope_frequencies' | 'long_rope_frequencies' | 'long_rope_above' | 'rope_scale'>

/** How an architecture writes what it rotates. */
export interface RopeKeys {
  /** Its own name of the frequencies' base, before `rope_theta`. */
  theta?: string
  defaultTheta?: number
  /** Its own name of the rotated fraction of a head, before `partial_rotary_factor`. Without `defaultFactor` whole heads are rotated. */
  factor?: string
  defaultFactor?: number
  /** Phi-3's second name for longrope. */
  yarnIsLongrope?: true
}

/** Rotation of heads of `head_dim` dims, from `rope_parameters` of transformers 5, else `rope_scaling` and keys of the top level. */
export function rope(config: Fields, head_dim: number, keys: RopeKeys = {}): RopeSpec {
  const parameters = config.object('rope_parameters')
  const scaling = parameters ?? config.object('rope_scaling')
  const [thetaFields, thetaKey] = find(config, parameters, 'rope_theta', keys.theta)
  const [factorFields, factorKey] = find(config, parameters, 'partial_rotary_factor', keys.factor)
  const factor = factorFields.real(factorKey, 0, 1, keys.defaultFactor ?? 1)
  if (keys.defaultFactor === undefined && factor !== 1) {
    throw factorFields.error(factorKey, '1 (this architecture rotates whole heads)')
  }
  const dims = Math.trunc(head_dim * factor)
  if (dims % 2 !== 0) {
    throw factorFields.error(
      factorKey,
      `a fraction that rotates an even number of the ${head_dim} dims of a head, not ${dims}`,
    )
  }
  const theta = thetaFields.real(thetaKey, 1, 1e12, keys.defaultTheta ?? 10000)
  if (keys.yarnIsLongrope && scaling?.text(scaling.has('rope_type') ? 'rope_type' : 'type') === 'yarn')
    return longrope(config, scaling, theta, dims)
  return scaled(config, scaling, theta, dims)
}

/** Frequencies with the scaling that `scaling` describes. */
export function scaled(config: Fields, scaling: Fields | undefined, theta: number, dims: number): RopeSpec {
  const typeKey = scaling?.has('rope_type') ? 'rope_type' : 'type'
  const type = scaling?.text(typeKey) ?? 'default'
  const plain = { long_rope_frequencies: new Float32Array(0), long_rope_above: 0, rope_scale: 1 }
  const unscaled = frequencies(theta, dims)
  if (scaling === undefined || type === 'default') return { ...plain, rope_frequencies: unscaled }
  switch (type) {
    case 'linear': {
      const factor = scaling.real('factor', 1, 1e6)
      return { ...plain, rope_frequencies: unscaled.map((frequency) => frequency / factor) }
    }
    case 'dynamic':
      // Up to max_position_embeddings it is no scaling at all. Beyond, the reference rotates a key differently from request to request,
      // by the length that the sequence happened to have when the key was computed: there it is not followed.
      scaling.real('factor', 1, 1e6)
      return { ...plain, rope_frequencies: unscaled }
    case 'llama3':
      return { ...plain, rope_frequencies: llama3(config, scaling, unscaled) }
    case 'yarn':
      return { ...plain, ...yarn(config, scaling, theta, unscaled) }
    case 'longrope':
    case 'su': // Phi-3's first name for it
      return longrope(config, scaling, theta, dims)
    default:
      throw scaling.error(typeKey, `one of ${list(['default', 'linear', 'dynamic', 'llama3', 'yarn', 'longrope'], 6)}`)
  }
}

/** theta^(-2i / dims) */
export function frequencies(theta: number, dims: number): Float32Array {
  return Float32Array.from({ length: dims / 2 }, (_, i) => 1 / power(theta, i, dims))
}

function power(theta: number, i: number, dims: number): number {
  return fround(fround(theta) ** fround((2 * i) / dims))
}

/** Low frequencies are divided by `factor`, high ones stay, those between are blended. */
function llama3(config: Fields, scaling: Fields, unscaled: Float32Array): Float32Array {
  const factor = scaling.real('factor', 1, 1e6)
  const low = scaling.real('low_freq_factor', 1e-6, 1e6)
  const high = scaling.real('high_freq_factor', 1e-6, 1e6)
  if (high <= low) throw scaling.error('high_freq_factor', `a number above low_freq_factor (${low})`)
  const original = originalPositions(config, scaling)
  return unscaled.map((frequency) => {
    const wavelength = fround((2 * Math.PI) / frequency)
    if (wavelength < original / high) return frequency
    if (wavelength > original / low) return frequency / factor
    const share = fround((original / wavelength - low) / (high - low))
    return ((1 - share) * frequency) / factor + share * frequency
  })
}

/** Between two bounds of rotations over the original context, frequencies go from unscaled to divided by `factor`. */
function yarn(
  config: Fields,
  scaling: Fields,
  theta: number,
  unscaled: Float32Array,
): Pick<RopeSpec, 'rope_frequencies' | 'rope_scale'> {
  const dims = 2 * unscaled.length
  const original = originalPositions(config, scaling)
  const factor = scaling.has('factor')
    ? scaling.real('factor', 1, 1e6)
    : config.int('max_position_embeddings', 1, 16777216) / original
  const bound = (rotations: number) => (dims * Math.log(original / (rotations * 2 * Math.PI))) / (2 * Math.log(theta))
  let low = bound(scaling.real('beta_fast', 1e-6, 1e6, 32))
  let high = bound(scaling.real('beta_slow', 1e-6, 1e6, 1))
  if (scaling.flag('truncate', true)) {
    low = Math.floor(low)
    high = Math.ceil(high)
  }
  low = Math.max(low, 0)
  high = Math.min(high, dims - 1)
  if (low === high) high += 0.001
  const rope_frequencies = unscaled.map((frequency, i) => {
    const ramp = fround(Math.min(Math.max((i - low) / (high - low), 0), 1))
    return fround(frequency / factor) * ramp + frequency * fround(1 - ramp)
  })

  const grown = (mscale: number) => (factor <= 1 ? 1 : 0.1 * mscale * Math.log(factor) + 1)
  const mscale = scaling.real('mscale', 0, 1e6, 0)
  const allDims = scaling.real('mscale_all_dim', 0, 1e6, 0)
  const wanted = mscale && allDims ? grown(mscale) / grown(allDims) : grown(1)
  return { rope_frequencies, rope_scale: scaling.real('attention_factor', 1e-3, 1e3, wanted) }
}

/** Two lists of divisors: one for sequences up to the original context, one for longer ones. */
function longrope(config: Fields, scaling: Fields, theta: number, dims: number): RopeSpec {
  const original = originalPositions(config, scaling)
  const positions = config.int('max_position_embeddings', 1, 16777216)
  const factor = scaling.has('factor') ? scaling.real('factor', 1e-6, 1e6) : positions / original
  const wanted = factor <= 1 ? 1 : Math.sqrt(1 + Math.log(factor) / Math.log(original))
  const divided = (key: string) => {
    const divisors = scaling.reals(key, dims / 2)
    return Float32Array.from(divisors, (divisor, i) => 1 / fround(fround(divisor) * power(theta, i, dims)))
  }
  return {
    rope_frequencies: divided('short_factor'),
    long_rope_frequencies: divided('long_factor'),
    long_rope_above: original,
    rope_scale: scaling.real('attention_factor', 1e-3, 1e3, wanted),
  }
}

/** Positions before the context was stretched: Phi-3 writes them beside rope_scaling, others inside. */
function originalPositions(config: Fields, scaling: Fields): number {
  const key = 'original_max_position_embeddings'
  if (config.has(key)) return config.int(key, 1, 16777216)
  return scaling.int(key, 1, 16777216, config.int('max_position_embeddings', 1, 16777216))
}

/** Which of the three spellings a config uses: transformers 5, the architecture's own, the general one. */
function find(config: Fields, parameters: Fields | undefined, key: string, own: string = key): [Fields, string] {
  if (parameters?.has(key)) return [parameters, key]
  return config.has(own) || !config.has(key) ? [config, own] : [config, key]
}
