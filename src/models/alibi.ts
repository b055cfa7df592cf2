// ALiBi's slopes: https://arxiv.org/abs/2108.12409, for any number of heads as BLOOM and Falcon have them.

/**
 * 2^(-8k / p) for k = 1 .. p, where p is the largest power of two up to `num_heads`; the heads above p take 2^(-4k / p) for odd k.
 */
export function alibiSlopes(num_heads: number): Float32Array {
  const power = 2 ** Math.floor(Math.log2(num_heads))
  return Float32Array.from({ length: num_heads }, (_, head) =>
    head < power ? 2 ** ((-8 * (head + 1)) / power) : 2 ** ((-4 * (2 * (head - power) + 1)) / power),
  )
}
