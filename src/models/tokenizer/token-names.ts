// The roles that a tokenizer's configuration gives to tokens.

import type { Fields } from '../fields.js'

/** Keys of tokenizer_config.json and special_tokens_map.json that name tokens. */
export const tokenRoles = ['bos_token', 'eos_token', 'unk_token', 'sep_token', 'pad_token', 'cls_token', 'mask_token']

/** The name of a token, stored as a string or as an object with its content. */
export function tokenName(fields: Fields | null, role: string): string | null {
  const value = fields?.raw(role)
  if (value === undefined) return null
  if (typeof value === 'string') return value
  return fields?.object(role)?.text('content') ?? null
}
