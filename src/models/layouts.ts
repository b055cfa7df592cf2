// How fused tensors share their rows: the layouts of query, key and value, and of gate and up.

import type { ModelSpec } from '../engine/contract.js'
import type { RowGroups, StoredName } from './architecture.js'

/** A function from the spec to the rows of one part: 0 query, 1 key, 2 value. */
type QkvLayout = (part: number) => (spec: ModelSpec) => RowGroups

/** Query, key and value of each head lie together: [q_0, k_0, v_0, q_1, k_1, v_1, ...]. */
export const perHead: QkvLayout =
  (part) =>
  ({ num_heads, head_dim }) => ({
    stored_rows: 3 * num_heads * head_dim,
    first_row: part * head_dim,
    group_rows: head_dim,
    group_stride: 3 * head_dim,
    num_groups: num_heads,
  })

/** The query heads that share a key/value head lie before it: [q_0 .. q_n, k_0, v_0, q_n+1 ...]. */
export const perGroup: QkvLayout =
  (part) =>
  ({ num_heads, num_kv_heads, head_dim }) => {
    const sharing = num_heads / num_kv_heads
    return {
      stored_rows: (num_heads + 2 * num_kv_heads) * head_dim,
      first_row: part === 0 ? 0 : (sharing + part - 1) * head_dim,
      group_rows: part === 0 ? sharing * head_dim : head_dim,
      group_stride: (sharing + 2) * head_dim,
      num_groups: num_kv_heads,
    }
  }

/** All queries, then all keys, then all values. */
export const inTurn: QkvLayout =
  (part) =>
  ({ num_heads, num_kv_heads, head_dim }) => {
    const query = num_heads * head_dim
    const kv = num_kv_heads * head_dim
    return run(query + 2 * kv, [0, query, query + kv][part] as number, part === 0 ? query : kv)
  }

/** Four blocks, made for four accelerators, each with a quarter of the queries, then of the values, then of the keys. */
export const fourBlocks: QkvLayout =
  (part) =>
  ({ num_heads, head_dim }) => {
    const quarter = (num_heads * head_dim) / 4
    return {
      stored_rows: 12 * quarter,
      first_row: ([0, 2, 1][part] as number) * quarter,
      group_rows: quarter,
      group_stride: 3 * quarter,
      num_groups: 4,
    }
  }

/** The gate's rows, then those of up; `part` 0 or 1. */
export function gateUp(part: number): (spec: ModelSpec) => RowGroups {
  return ({ intermediate_size }) => run(2 * intermediate_size, part * intermediate_size, intermediate_size)
}

/** `num_rows` rows from `first_row` on. */
export function run(stored_rows: number, first_row: number, num_rows: number): RowGroups {
  return { stored_rows, first_row, group_rows: num_rows, group_stride: num_rows, num_groups: 1 }
}

/** A weight and its bias under one name. */
export function linear<Role extends string>(
  role: Role,
  name: string,
  more: Omit<StoredName, 'names'> = {},
): Record<`${Role}_weight` | `${Role}_bias`, StoredName> {
  const { transposed: _, ...ofBias } = more
  return {
    [`${role}_weight`]: { names: [`${name}.weight`], ...more },
    [`${role}_bias`]: { names: [`${name}.bias`], ...ofBias },
  } as Record<`${Role}_weight` | `${Role}_bias`, StoredName>
}

/** Weight alone. */
export function weight<Role extends string>(
  role: Role,
  name: string,
  more: Omit<StoredName, 'names'> = {},
): Record<`${Role}_weight`, StoredName> {
  return { [`${role}_weight`]: { names: [`${name}.weight`], ...more } } as Record<`${Role}_weight`, StoredName>
}

/** Query, key and value as parts of one stored tensor, weight and bias. */
export function fusedQkv(name: string, layout: QkvLayout, more: Omit<StoredName, 'names' | 'rows'> = {}) {
  return {
    ...linear('query', name, { rows: layout(0), ...more }),
    ...linear('key', name, { rows: layout(1), ...more }),
    ...linear('value', name, { rows: layout(2), ...more }),
  }
}
