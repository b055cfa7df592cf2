// A model's numbers as its sources name them, without the engine: two folders that hold the same model have the same ones.

import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import type { Model } from '../../src/models/model.js'

/** Hash of the spec and of every canonical tensor, row by row. */
export function numbersOf({ spec, tensors, files }: Model): string {
  const hash = createHash('sha256').update(JSON.stringify(spec))
  const bytes = files.map((file) => readFileSync(file))
  for (const source of tensors) {
    hash.update(
      `${source.role} ${source.layer} ${source.dtype} ${source.cols} ${source.group_rows * source.num_groups};`,
    )
    const rowBytes = source.cols * (source.dtype === 'float32' ? 4 : 2)
    for (let group = 0; group < source.num_groups; group++) {
      const start = source.offset + (source.first_row + group * source.group_stride) * rowBytes
      const end = start + source.group_rows * rowBytes
      const file = bytes[source.file] as Buffer
      if (end > file.length) throw new Error(`${source.role}: rows end at ${end}, the file at ${file.length}`)
      hash.update(file.subarray(start, end))
    }
  }
  return hash.digest('hex')
}
