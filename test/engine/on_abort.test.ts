import { getEventListeners } from 'node:events'
import { expect, test } from 'vitest'
import { onAbort } from '../../src/engine/on_abort.js'

test('all that wait for a signal are called once, but for those that stopped, and the signal has one listener', () => {
  const controller = new AbortController()
  const called: number[] = []
  const stops = Array.from({ length: 20 }, (_, i) => onAbort(controller.signal, () => called.push(i)))
  for (const stop of stops.slice(2)) stop()
  expect(getEventListeners(controller.signal, 'abort')).toHaveLength(1)
  controller.abort()
  expect(called).toEqual([0, 1])
})
