// `parley fit`: the plan, what a person sees of it, and the command with its errors.

import { execFile } from 'node:child_process'
import { cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, describe, expect, test } from 'vitest'
import { fitOptions, readTable } from '../src/config.js'
import { type Fit, findPlace, fitOf, knownFits, type Place } from '../src/fit-plan.js'
import { modelText, type Screen, tableText } from '../src/fit-text.js'
import { Fields } from '../src/models/fields.js'
import { knownCheckpoints } from '../src/models/known-checkpoints.js'
import { outlineOf } from '../src/models/outline.js'

const GiB = 2 ** 30
const options = (flags: Record<string, string> = {}) =>
  readTable(fitOptions, { threads: '2', isa: 'baseline', ...flags }, {})
const cpu = (memory: number): Place => ({ memory, bound: 'on this machine', devices: null, gpus: [], planner: 'cpu' })
const gpus = (devices: number, memory: number): Place => ({ memory, bound: null, devices, gpus: [], planner: 'cpu' })

function planned(id: string, place: Place, flags: Record<string, string> = {}): Fit {
  const known = knownCheckpoints.find((one) => one.id === id)
  return fitOf(id, outlineOf(new Fields(id, known?.config ?? {})), options(flags), place)
}

describe('on the CPU', () => {
  const llama = 'meta-llama/Llama-3.1-8B-Instruct'

  test('weights, KV pages and all else come to no more than there is', () => {
    const found = planned(llama, cpu(24 * GiB))
    expect(found).toMatchObject({
      num_parameters: 8030261248,
      dtype: 'bfloat16',
      float16_problem: null,
      fits: true,
      tensor_parallel_size: 1,
      kv_bytes_per_token: 2 * 32 * 8 * 128 * 2,
    })
    const { weight_bytes, workspace_bytes, process_bytes, long_text_bytes, kv_cache_bytes } = found
    expect(weight_bytes / (2 * 8030261248)).toBeCloseTo(1, 3)
    const left = 24 * GiB - weight_bytes - workspace_bytes - process_bytes - long_text_bytes
    expect(kv_cache_bytes / left).toBeCloseTo(0.8, 2)
    expect(found.max_model_len).toBe(found.kv_cache_tokens)
    for (const { tokens, at_once } of found.loads) {
      expect(at_once * tokens).toBeLessThanOrEqual(found.kv_cache_tokens)
      expect(at_once).toBe(Math.min(64, Math.floor(found.kv_cache_tokens / tokens)))
    }
  })

  test('what it needs is enough, and less is not', () => {
    const { fits, needed_bytes, loads, kv_cache_bytes } = planned(llama, cpu(8 * GiB))
    expect({ fits, loads, kv_cache_bytes }).toEqual({ fits: false, loads: [], kv_cache_bytes: 0 })
    expect(planned(llama, cpu(needed_bytes)).fits).toBe(true)
    expect(planned(llama, cpu(needed_bytes - 1)).fits).toBe(false)
  })

  test('a T5 is not safe in float16', () => {
    expect(planned('google/flan-t5-xl', cpu(24 * GiB))).toMatchObject({ dtype: 'bfloat16', float16_problem: /range/ })
    expect(() => planned('google/flan-t5-xl', cpu(24 * GiB), { dtype: 'float16' })).toThrow(
      /--dtype: expected bfloat16/,
    )
    const all = knownFits(options({ dtype: 'float16', max_model_len: '100000' }), cpu(24 * GiB))
    expect(all.find(({ id }) => id === 'google/flan-t5-xl')).toMatchObject({ dtype: 'bfloat16', max_model_len: 4096 })
    expect(all.find(({ id }) => id === 'openai-community/gpt2')).toMatchObject({
      dtype: 'float16',
      max_model_len: 1024,
    })
  })
})

test('a model whose pages do not fit into the KV memory that was asked for is left out', () => {
  const few = knownFits(options({ kv_cache_memory: '10MiB' }), cpu(24 * GiB))
  expect(few.some(({ id }) => id === 'EleutherAI/pythia-70m')).toBe(true)
  expect(few.some(({ id }) => id === 'EleutherAI/pythia-6.9b')).toBe(false)
  expect(() => knownFits(options({ kv_cache_memory: '1KiB' }), cpu(24 * GiB))).toThrow(
    /^--kv-cache-memory: expected room/,
  )
})

describe('for several devices', () => {
  const big = 'meta-llama/Llama-3.3-70B-Instruct'

  test('the fewest that have room, each with its part', () => {
    expect(planned(big, gpus(8, 80 * GiB))).toMatchObject({ fits: true, tensor_parallel_size: 2 })
    const four = planned(big, gpus(8, 48 * GiB))
    expect(four).toMatchObject({ fits: true, tensor_parallel_size: 4, kv_bytes_per_token: (2 * 80 * 8 * 128 * 2) / 4 })
    expect(four.weight_bytes / (2 * 70553706496)).toBeCloseTo(1 / 4, 3)
    expect(planned(big, gpus(8, 80 * GiB), { max_model_len: '100' })).toMatchObject({ tensor_parallel_size: 2 })
    expect(planned(big, gpus(3, 48 * GiB))).toMatchObject({ fits: false, tensor_parallel_size: 2 })
  })

  test('a key/value head is not split', () => {
    const { kv_bytes_per_token } = planned('tiiuae/falcon-7b', gpus(2, 9 * GiB))
    expect(kv_bytes_per_token).toBe(2 * 32 * 64 * 2)
  })

  test('their memory must be known', async () => {
    await expect(findPlace(options({ devices: '64' }))).rejects.toThrow(
      /^--devices: expected --memory with it, the memory of each \(nvidia-smi lists .* here\)$/,
    )
    expect(await findPlace(options({ devices: '2', memory: '24GiB' }))).toEqual(gpus(2, 24 * GiB))
    // The emulated one.
    const found = [{ name: 'emulated GPU', bytes: 4 * GiB }]
    const here: Place = { ...gpus(1, 4 * GiB), gpus: found, planner: 'cuda' }
    expect(await findPlace(options({ device: 'auto' }))).toEqual(here)
    expect(await findPlace(options({ device: 'cpu' }))).toMatchObject({ devices: null, gpus: [] })
  })
})

describe('the text', () => {
  const screen = (columns: number): Screen => ({ columns, colours: false })
  const places = [cpu(24 * GiB), cpu(GiB), cpu(2 ** 20), gpus(2, 24 * GiB), gpus(8, 80 * GiB)]

  test.each([80, 120])('keeps to %d columns', (columns) => {
    for (const place of places) {
      const fits = knownFits(options(), place)
      for (const all of [false, true])
        for (const line of tableText(fits, place, 2048, all, screen(columns)).split('\n'))
          expect(line.length, line).toBeLessThanOrEqual(columns)
    }
  })

  test('names the largest that fits, and what else there is', () => {
    const fits = knownFits(options(), cpu(10 * GiB))
    const [largest] = fits.filter((one) => one.fits)
    const text = tableText(fits, cpu(10 * GiB), 2048, false, screen(100))
    expect(text).toMatch(
      /^10\.0 GiB free on this machine, on the CPU\.\n\n {2}MODEL +PARAMS +WEIGHTS +KV\/TOKEN +CONTEXT +AT 2K\n/,
    )
    expect(text.split('\n')[3]).toContain(largest?.id)
    expect(text).toContain(`The largest that fits: ${largest?.id}`)
    expect(text).toMatch(/\n\d+ smaller ones fit too, \d+ need more memory; --all shows them\.\n/)
    expect(tableText(fits, cpu(10 * GiB), 2048, true, screen(100)).split('\n').length).toBeGreaterThan(fits.length)
    expect(tableText(knownFits(options(), cpu(1)), cpu(1), 2048, false, screen(100))).toMatch(
      /None of the \d+ known checkpoints fits\.\nThe smallest, .+, needs \d+ MiB\.$/,
    )
  })

  test('says of a plan for GPUs that it is one', () => {
    const place = gpus(2, 24 * GiB)
    expect(tableText(knownFits(options(), place), place, 2048, false, screen(100))).toMatch(
      /^A plan for 2 GPUs of 24\.0 GiB each\.\n/,
    )
    const found = { ...cpu(GiB), gpus: [{ name: 'NVIDIA L4', bytes: 23 * GiB }] }
    expect(tableText(knownFits(options(), found), found, 2048, false, screen(100))).toContain(
      'NVIDIA L4 found, not used: `parley serve --device cuda` says why; `--devices 1` plans for it.',
    )
  })

  test('of one model', () => {
    const place = cpu(24 * GiB)
    const text = modelText(planned('EleutherAI/pythia-6.9b', place), 'somewhere', place, undefined, screen(80))
    expect(text).toMatch(
      /^EleutherAI\/pythia-6\.9b: GPTNeoXForCausalLM, 6\.86 B parameters, context 2,048\nfrom somewhere\n/,
    )
    expect(text).toMatch(/ 12\.8 GiB {2}weights in float16; float16 is safe\n/)
    expect(text).toMatch(/It fits: [\d.]+ GiB of KV pages hold [\d,]+ tokens\.\n/)
    expect(text).toMatch(/\n {5}2,048 {2}\d+$/)
    const tight = planned('EleutherAI/gpt-neox-20b', place)
    const [instead] = knownFits(options(), place).filter((one) => one.fits)
    expect(modelText(tight, 'somewhere', place, instead, screen(80))).toContain(
      `It does not fit: it needs 39.3 GiB at least.\nThe largest known checkpoint that fits: ${instead?.id}`,
    )
  })
})

describe('the command', () => {
  const main = fileURLToPath(new URL('../dist/main.js', import.meta.url))
  const folder = mkdtempSync(join(tmpdir(), 'parley-fit-'))
  afterAll(() => rmSync(folder, { recursive: true }))

  const run = (...args: string[]) =>
    new Promise<{ code: number; output: string; error: string }>((resolve) => {
      const env = { ...process.env, HF_HUB_CACHE: join(folder, 'hub'), HF_HUB_OFFLINE: '1', PARLEY_DEVICE: 'cpu' }
      execFile(process.execPath, [main, 'fit', ...args], { env }, (error, output, stderr) =>
        resolve({ code: typeof error?.code === 'number' ? error.code : 0, output, error: stderr }),
      )
    })

  test('plans with a config.json alone, in a folder, by its path and in the cache', async () => {
    const config = fileURLToPath(new URL('fixtures/families/llama-plain/config.json', import.meta.url))
    const model = join(folder, 'model')
    const commit = '0'.repeat(40)
    const cached = join(folder, 'hub/models--org--tiny')
    for (const made of [model, join(cached, 'snapshots', commit), join(cached, 'refs')])
      mkdirSync(made, { recursive: true })
    cpSync(config, join(model, 'config.json'))
    cpSync(config, join(cached, 'snapshots', commit, 'config.json'))
    writeFileSync(join(cached, 'refs/main'), commit)
    const found = await Promise.all(
      [model, join(model, 'config.json'), 'org/tiny'].map(async (name) => {
        const { code, output } = await run(name, '--json', '--memory', '4GiB')
        const { models, ...head } = JSON.parse(output)
        expect({ code, head }).toEqual({
          code: 0,
          head: { version: expect.any(String), memory_bytes: 4 * GiB, devices: null, is_plan: false, gpus: [] },
        })
        expect(models).toHaveLength(1)
        return { ...models[0], id: '' }
      }),
    )
    expect(found[0]).toMatchObject({ architecture: 'LlamaForCausalLM', fits: true })
    expect(found[1]).toEqual(found[0])
    expect(found[2]).toEqual(found[0])
  })

  test('tells of known models, and what is wrong with a name or an option', async () => {
    const cases: [string[], number, RegExp][] = [
      [['pythia-70m', '--memory', '2GiB'], 0, /^EleutherAI\/pythia-70m: .*\nfrom Parley's table of checkpoints\n/],
      [['gpt-neox-20b', '--memory', '24GiB'], 1, /does not fit: it needs 39\.\d GiB at least\./],
      [
        ['gpt-j'],
        2,
        /^parley: fit: expected a folder, org\/name of a hub or a known name, got "gpt-j"; known are EleutherAI\/gpt-j-6b\n$/,
      ],
      [['./nothing'], 2, /got "\.\/nothing"; `parley fit --all` lists the known ones\n$/],
      [['org/unknown'], 1, /^parley: org\/unknown: expected .* in the cache because HF_HUB_OFFLINE is set/],
      [
        ['--memory', '24 apples'],
        2,
        /^parley: --memory: expected bytes such as 536870912, 512MiB or 2GB, got "24 apples"\n$/,
      ],
    ]
    const found = await Promise.all(cases.map(([args]) => run(...args)))
    for (const [i, [args, code, text]] of cases.entries()) {
      expect(`${found[i]?.output}${found[i]?.error}`, args.join(' ')).toMatch(text)
      expect(found[i]?.code, args.join(' ')).toBe(code)
    }
  })
})
