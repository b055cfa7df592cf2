// The objects and events of the responses API, as far as this server makes them.

import type { ChatTokenChoice } from './chat_tokens.js'

export interface OutputText {
  type: 'output_text'
  text: string
  annotations: []
  logprobs: ChatTokenChoice[]
}

export interface OutputMessage {
  id: string
  type: 'message'
  status: 'in_progress' | 'completed' | 'incomplete'
  role: 'assistant'
  content: OutputText[]
}

export interface InputMessage {
  id: string
  type: 'message'
  status: 'completed'
  role: 'user' | 'system' | 'developer'
  content: { type: 'input_text'; text: string }[]
}

export interface ResponseUsage {
  input_tokens: number
  input_tokens_details: { cached_tokens: number; cache_write_tokens: number }
  output_tokens: number
  output_tokens_details: { reasoning_tokens: number }
  total_tokens: number
}

export interface ResponseObject {
  id: string
  object: 'response'
  access_programs: null
  created_at: number
  status: 'queued' | 'in_progress' | 'completed' | 'incomplete' | 'failed' | 'cancelled'
  completed_at: number | null
  background: boolean
  error: { code: 'server_error'; message: string } | null
  incomplete_details: { reason: 'max_output_tokens' } | null
  instructions: string | null
  max_output_tokens: number | null
  metadata: Record<string, string>
  model: string
  output: OutputMessage[]
  /** all text of the output; the clients make it themselves, other readers find it here */
  output_text: string
  parallel_tool_calls: boolean
  previous_response_id: string | null
  service_tier: 'default'
  store: boolean
  temperature: number
  text: { format: { type: 'text' } }
  tool_choice: 'auto' | 'none'
  tools: []
  top_logprobs: number
  top_p: number
  truncation: 'disabled'
  usage?: ResponseUsage
  user?: string
}

interface Place {
  item_id: string
  output_index: number
  content_index: number
}

type EventBody =
  | {
      type:
        | 'response.created'
        | 'response.in_progress'
        | 'response.completed'
        | 'response.incomplete'
        | 'response.failed'
      response: ResponseObject
    }
  | { type: 'response.output_item.added' | 'response.output_item.done'; output_index: number; item: OutputMessage }
  | (Place & { type: 'response.content_part.added' | 'response.content_part.done'; part: OutputText })
  | (Place & { type: 'response.output_text.delta'; delta: string; logprobs: ChatTokenChoice[]; obfuscation?: string })
  | (Place & { type: 'response.output_text.done'; text: string; logprobs: ChatTokenChoice[] })
  | { type: 'error'; code: string | null; message: string; param: string | null }

/** An event and its place in the stream. */
export type ResponseEvent = EventBody & { sequence_number: number }

/** Numbers the events of one stream. */
export function eventNumbers(): (event: EventBody) => ResponseEvent {
  let next = 0
  return (event) => ({ ...event, sequence_number: next++ })
}
