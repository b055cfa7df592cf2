// Watches the event loop of the process that it is loaded into: a server, or one of its own that does nothing, which only the machine delays.
// Asked by any message of the parent, it answers with the longest delay since it was last asked, in ms.
import { monitorEventLoopDelay } from 'node:perf_hooks'

const resolutionMs = 10
const delay = monitorEventLoopDelay({ resolution: resolutionMs })
delay.enable()
process.on('message', () => {
  process.send(delay.max / 1e6 - resolutionMs)
  delay.reset()
})
