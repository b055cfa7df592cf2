import { expect, test } from 'vitest'
import { merge } from '../../src/generation/merge.js'

async function collect<T>(values: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = []
  for await (const value of values) all.push(value)
  return all
}

test('values come in the order in which they are there, all of them', async () => {
  let letB: () => void = () => {}
  const gate = new Promise<void>((resolve) => {
    letB = resolve
  })
  async function* a() {
    yield 'a1'
    yield 'a2'
    letB()
    yield 'a3'
  }
  async function* b() {
    await gate
    yield 'b1'
  }
  const all = await collect(merge([a(), b()]))
  expect(all.slice(0, 2)).toEqual(['a1', 'a2'])
  expect(all.sort()).toEqual(['a1', 'a2', 'a3', 'b1'])
  expect(await collect(merge([]))).toEqual([])
})

test('nobody runs ahead of the reader by more than one value', async () => {
  let made = 0
  async function* fast() {
    for (;;) yield ++made
  }
  const merged = merge([fast()])
  for (let i = 1; i <= 5; i++) {
    await merged.next()
    await new Promise((resolve) => setImmediate(resolve))
    expect(made).toBe(i)
  }
})

test('the first error ends it', async () => {
  async function* failing() {
    yield 1
    throw new Error('broken')
  }
  async function* endless() {
    for (;;) yield 2
  }
  await expect(collect(merge([failing(), endless()]))).rejects.toThrow('broken')
})
