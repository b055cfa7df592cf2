// Values → the text of a Prometheus histogram, which must be prom-client's own.

import { type Metric, Histogram as PromHistogram, Registry } from 'prom-client'
import { expect, test } from 'vitest'
import { Histogram } from '../src/histogram.js'

const bounds = [0.0005, 0.001, 0.1, 2.5, 80]

test('a histogram looks as that of prom-client, empty and with values below, at and above the bounds', async () => {
  const [theirs, ours] = [new Registry(), new Registry()]
  for (const registry of [theirs, ours]) registry.setDefaultLabels({ model_name: 'a"b', engine: '0' })
  const reference = new PromHistogram({ name: 'vllm:x', help: 'What it is.', buckets: bounds, registers: [theirs] })
  const histogram = new Histogram('vllm:x', 'What it is.', bounds)
  ours.registerMetric(histogram as object as Metric)
  expect(await ours.metrics()).toBe(await theirs.metrics())
  for (const value of [0, 0.0005, 0.0006, 0.1, 0.3, 3, 80, 80.1, 1e9]) {
    reference.observe(value)
    histogram.observe(value)
  }
  expect(await ours.metrics()).toBe(await theirs.metrics())
})
