// Turns of the event loop: what one of them has to say to a connection leaves in one piece.

let waiting: (() => void)[] = []

/** Calls `flush`, which must not throw, when all that this turn has to do is done. */
export function atEndOfTurn(flush: () => void): void {
  // One tick for all: with 128 streams each of their own would cost as much as making the text.
  if (waiting.length === 0) process.nextTick(flushAll)
  waiting.push(flush)
}

function flushAll(): void {
  const all = waiting
  waiting = []
  for (const flush of all) flush()
}
