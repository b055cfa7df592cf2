// The least that a front end in Node can cost: a process that writes ready bytes to many sockets, and does nothing else. Asked by messages
// of its parent: {} → { port }; { bytes, every, steps } → { us }: to each connection so many bytes every so many milliseconds, so many
// times, and the CPU of a write in microseconds.
import { readFileSync } from 'node:fs'
import { createServer } from 'node:net'

const sockets = []
const server = createServer((socket) => {
  sockets.push(socket.resume())
  socket.on('error', () => {})
}).listen(0, '127.0.0.1')

process.on('disconnect', () => process.exit()) // the benchmark has failed
process.on('message', async ({ bytes, every, steps }) => {
  if (bytes === undefined) {
    if (!server.listening) await new Promise((resolve) => server.once('listening', resolve))
    process.send({ port: server.address().port })
    return
  }
  const text = 'x'.repeat(bytes)
  const before = cpuSeconds()
  for (let step = 0; step < steps; step++) {
    await new Promise((resolve) => setTimeout(resolve, every))
    for (const socket of sockets) socket.write(text, 'latin1')
  }
  process.send({ us: ((cpuSeconds() - before) * 1e6) / (sockets.length * steps) })
})

/** Of JavaScript's thread, from Linux's /proc; NaN elsewhere. */
function cpuSeconds() {
  try {
    return Number(readFileSync(`/proc/self/task/${process.pid}/schedstat`, 'utf8').split(' ')[0]) / 1e9
  } catch {
    return Number.NaN
  }
}
