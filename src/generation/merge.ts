// Several async iterators, one stream: whoever has a value goes first, and nobody runs ahead of the reader by more than one value.

/** @param sources all are drained; the first that throws ends the stream */
export async function* merge<T>(sources: readonly AsyncIterator<T>[]): AsyncGenerator<T> {
  type Ready = { source: AsyncIterator<T>; result: IteratorResult<T> } | { error: unknown }
  const ready: Ready[] = []
  let wake: (() => void) | null = null
  const push = (item: Ready) => {
    ready.push(item)
    wake?.()
  }
  const pull = (source: AsyncIterator<T>) => {
    source.next().then(
      (result) => push({ source, result }),
      (error: unknown) => push({ error }),
    )
  }
  for (const source of sources) pull(source)
  let live = sources.length
  while (live > 0) {
    const item = ready.shift()
    if (item === undefined) {
      await new Promise<void>((resolve) => {
        wake = resolve
      })
      wake = null
    } else if ('error' in item) {
      throw item.error
    } else if (item.result.done) {
      live--
    } else {
      yield item.result.value
      pull(item.source)
    }
  }
}
