// A process that does nothing, beside a server: what its event loop is delayed by is the machine's doing. Asked by any message of its
// parent, it answers with the longest delay since it was last asked, in ms.
import { monitorEventLoopDelay } from 'node:perf_hooks'

const resolutionMs = 10
const delay = monitorEventLoopDelay({ resolution: resolutionMs })
delay.enable()
process.on('message', () => {
  process.send(delay.max / 1e6 - resolutionMs)
  delay.reset()
})
