import { open } from 'node:fs/promises'
import { createInterface } from 'node:readline'
import { sleep, systemClock } from '../../base/clock.ts'
import { failure } from '../../base/errors.ts'
import { defaultLimits } from '../../base/limits.ts'
import { silentLog } from '../../base/log.ts'
import { serveDisk } from '../../images/nbd/server.ts'

/**
 * Serves a file by NBD until it is killed: `export-child.ts SOCKET FILE [UID]`. Each line of its
 * input says how it reads from then on: so many milliseconds a read, or `fail`.
 */
const [path = '', file = '', user] = process.argv.slice(2)
let waitMs = 0
let fails = false
createInterface(process.stdin).on('line', line => {
  fails = line === 'fail'
  waitMs = fails ? 0 : Number(line)
  console.log('heard')
})
const handle = await open(file)
const disk = {
  sizeBytes: (await handle.stat()).size,
  async read(offsetBytes: number, lengthBytes: number, signal: AbortSignal): Promise<Buffer> {
    if (waitMs > 0) await sleep(systemClock, waitMs, signal)
    if (fails) {
      throw failure('unavailable', { what: 'every source', detail: 'gone', advice: '' })
    }
    const bytes = Buffer.allocUnsafe(lengthBytes)
    await handle.read(bytes, 0, lengthBytes, offsetBytes)
    return bytes
  },
}
const owner = user === undefined ? undefined : { uid: Number(user), gid: Number(user) }
await serveDisk(
  { path, owner, disk },
  { clock: systemClock, log: silentLog, limits: defaultLimits },
)
console.log('ready')
