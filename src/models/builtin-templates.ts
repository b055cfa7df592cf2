// Chat templates for models that bring none: `--chat-template builtin:plain`.

import type { Tokenizer } from './tokenizer.js'

const templates: Record<string, string> = {
  /** A dialogue in plain words, as base models have read many. */
  plain: `{%- for message in messages %}
    {%- if message.role == 'system' %}
        {{- message.content + '\\n\\n' }}
    {%- else %}
        {{- ('User: ' if message.role == 'user' else 'Assistant: ') + message.content + '\\n\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- 'Assistant:' }}
{%- endif %}`,
  /** The format of the many models that were tuned with <|im_start|> and <|im_end|>. */
  chatml: `{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}`,
}

/** What stands behind `builtin:`. */
export const builtinTemplates = Object.keys(templates)

/** A template's source; it begins with BOS for a tokenizer that puts one before a text. */
export function builtinTemplate(name: string, tokenizer: Tokenizer): string {
  const { bosTokenId } = tokenizer
  const addsBos = bosTokenId !== null && tokenizer.encode('', { addSpecialTokens: true })[0] === bosTokenId
  return (addsBos ? '{{- bos_token }}' : '') + templates[name]
}
