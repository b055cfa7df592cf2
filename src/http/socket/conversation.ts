// The conversation of a realtime session: messages in an order that the client may change.

import { ApiError } from '../../errors.js'
import type { ChatMessage } from '../../generation/template.js'
import { newId } from '../answer.js'
import { maxBodyBytes } from '../body.js'

export interface Item {
  id: string
  object: 'realtime.item'
  type: 'message'
  status: 'completed' | 'incomplete' | 'in_progress'
  role: 'system' | 'user' | 'assistant'
  content: { type: 'input_text' | 'output_text'; text: string }[]
}

/** What each item counts beside its text. */
const itemLength = 100

export class Conversation {
  readonly id = newId('conv_')
  readonly #items: Item[] = []

  /**
   * @param after id of the item before it; 'root': it becomes the first; undefined: the last
   * @returns id of the item before it, or null
   * @throws ApiError
   */
  insert(item: Item, after: string | undefined): string | null {
    if (this.#items.some(({ id }) => id === item.id)) {
      throw new ApiError('invalid_value', `There is an item with the id '${item.id}' already.`, 'item.id')
    }
    const length = [...this.#items, item].reduce((sum, each) => sum + itemLength + textOf(each).length, 0)
    if (length > maxBodyBytes) {
      throw new ApiError('request_too_large', `A conversation must have at most ${maxBodyBytes} characters.`, 'item')
    }
    const at =
      after === undefined ? this.#items.length : after === 'root' ? 0 : this.#find(after, 'previous_item_id') + 1
    this.#items.splice(at, 0, item)
    return this.#items[at - 1]?.id ?? null
  }

  /** @throws ApiError */
  get(id: string): Item {
    return this.#items[this.#find(id, 'item_id')] as Item
  }

  /** @throws ApiError */
  delete(id: string): void {
    this.#items.splice(this.#find(id, 'item_id'), 1)
  }

  /** What a response reads: all that is complete. */
  get messages(): ChatMessage[] {
    return this.#items.filter(({ status }) => status !== 'in_progress').map(messageOf)
  }

  #find(id: string, param: string): number {
    const at = this.#items.findIndex((item) => item.id === id)
    if (at === -1) throw new ApiError('item_not_found', `There is no item with the id '${id.slice(0, 100)}'.`, param)
    return at
  }
}

export function messageOf(item: Item): ChatMessage {
  return { role: item.role, content: textOf(item) }
}

function textOf({ content }: Item): string {
  return content.map(({ text }) => text).join('')
}
