// A client in a process of its own, so that its work is not counted as the server's. Asked by messages of its parent:
// { streams, tokens, over: 'sse' | 'ws' } → { seconds, rate }: so many streams at once, from the first request to the last byte, and their
// tokens a second while all of them run. Connections are kept, as the usual clients keep them.
// { idle } → { open }: so many WebSockets, which stay open until the process ends.
// { waiting, tokens } → { open }: so many event streams that are asked for and read.
import { connect } from 'node:net'
import { performance } from 'node:perf_hooks'
import { WebSocket } from 'ws'
import { Pace } from './pace.mjs'

const port = Number(process.argv[2])
const sockets = []
const streamSockets = []
/** Connections for event streams, and the WebSocket, that wait for the next request. */
const kept = new Set()
let keptWebSocket = null

process.on('disconnect', () => process.exit()) // the benchmark has failed
process.on('message', async (asked) => {
  if (asked.idle !== undefined) {
    while (sockets.length < asked.idle) {
      const some = Array.from({ length: Math.min(250, asked.idle - sockets.length) }, open)
      sockets.push(...(await Promise.all(some)))
    }
    process.send({ open: sockets.length })
    return
  }
  const { streams, tokens, over } = asked
  if (asked.waiting !== undefined) {
    while (streamSockets.length < asked.waiting) {
      const some = Array.from({ length: Math.min(250, asked.waiting - streamSockets.length) }, () =>
        askForEvents(tokens),
      )
      streamSockets.push(...(await Promise.all(some)))
    }
    process.send({ open: streamSockets.length })
    return
  }
  const start = performance.now()
  const pace = new Pace()
  if (over === 'ws') await webSocketStreams(asked, pace)
  else await Promise.all(Array.from({ length: streams }, () => eventStream(tokens, pace)))
  process.send({ seconds: (performance.now() - start) / 1000, rate: pace.rate(streams * tokens) })
})

// Greedy, as the engine alone: the model's own temperature and top_p would cost the engine more.
const bodyOf = (max_tokens) => ({
  prompt: 'Once upon a time',
  max_tokens,
  temperature: 0,
  ignore_eos: true,
  stream: true,
})

function postOf(tokens) {
  const body = JSON.stringify(bodyOf(tokens))
  return `POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: ${body.length}\r\n\r\n${body}`
}

/** A connection that has asked for a stream. */
function askForEvents(tokens) {
  return new Promise((resolve, reject) => {
    const socket = connect(port, '127.0.0.1', () => socket.write(postOf(tokens), () => resolve(socket))).resume()
    socket.on('error', reject)
  })
}

/** Resolves at the end of a stream of server-sent events, which is looked at no further: reading it is not what is measured. */
async function eventStream(tokens, pace) {
  const socket = await connection()
  await new Promise((resolve, reject) => {
    let end = ''
    const read = (data) => {
      pace.add(data.length)
      end = (end + data.subarray(-20).toString('latin1')).slice(-20)
      if (!end.endsWith('0\r\n\r\n')) return
      socket.off('data', read).off('close', ended)
      kept.add(socket)
      resolve()
    }
    const ended = () => reject(new Error('the stream ended early'))
    socket.on('data', read).on('close', ended)
    socket.write(postOf(tokens))
  })
}

/** One that is kept, or a new one. */
async function connection() {
  for (const socket of kept) {
    kept.delete(socket)
    return socket
  }
  return new Promise((resolve, reject) => {
    const socket = connect(port, '127.0.0.1', () => resolve(socket))
    socket.on('error', reject)
    socket.on('close', () => kept.delete(socket))
  })
}

/** All streams over one WebSocket. */
async function webSocketStreams({ streams, tokens }, pace) {
  keptWebSocket ??= await open()
  const socket = keptWebSocket
  await new Promise((resolve, reject) => {
    let running = streams
    const ended = () => reject(new Error('the connection ended early'))
    const read = (data) => {
      pace.add(data.length)
      if (data.length > 200) return
      if (JSON.parse(data).error) reject(new Error(data.toString()))
      else if (--running === 0) {
        socket.off('message', read).off('close', ended)
        resolve()
      }
    }
    socket.on('message', read).on('close', ended)
    for (let id = 0; id < streams; id++) {
      socket.send(JSON.stringify({ id, method: 'completions', params: bodyOf(tokens) }))
    }
  })
}

function open() {
  return new Promise((resolve, reject) => {
    const socket = new WebSocket(`ws://127.0.0.1:${port}/v1/stream`, { perMessageDeflate: false })
    socket.once('open', () => resolve(socket))
    socket.once('error', reject)
  })
}
