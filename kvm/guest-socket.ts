import { type FileHandle, open } from 'node:fs/promises'
import { connect, type Socket } from 'node:net'
import { type Clock, withTimeout } from '../base/clock.ts'
import { failure } from '../base/errors.ts'

/** open(2): only names the file; Node's constants do not have it. */
const O_PATH = 0o10000000
const O_NOFOLLOW = 0o400000

/**
 * Connects to a unix socket in a folder that a guest's user can write. A guest that has taken over
 * its QEMU may have put a symbolic link to another guest's socket there; only a socket that lies
 * there itself is connected to, through its descriptor, so that it can't be exchanged in between.
 * @throws guestUnreachable when there is none, nobody listens, or it takes longer than `timeoutMs`;
 * guestSocketRefused when something else lies there
 */
export async function connectGuestSocket(
  path: string,
  timeoutMs: number,
  clock: Clock,
): Promise<Socket> {
  let handle: FileHandle | undefined
  let socket: Socket | undefined
  try {
    handle = await open(path, O_PATH | O_NOFOLLOW)
    if (!(await handle.stat()).isSocket()) throw failure('guestSocketRefused', { path })
    socket = connect(`/proc/self/fd/${handle.fd}`)
    await withTimeout(clock, timeoutMs, connected(socket), () =>
      failure('guestUnreachable', { path, detail: `no connection within ${timeoutMs} ms` }),
    )
    return socket
  } catch (error) {
    socket?.destroy()
    const code = error instanceof Error ? (error as NodeJS.ErrnoException).code : undefined
    if (code === 'ENOENT' || code === 'ECONNREFUSED' || code === 'EAGAIN') {
      throw failure('guestUnreachable', { path, detail: reasons[code] }, { cause: error })
    }
    throw error
  } finally {
    await handle?.close()
  }
}

const reasons = {
  ENOENT: 'there is no such socket',
  ECONNREFUSED: 'nobody listens',
  EAGAIN: 'too many others wait for it',
}

function connected(socket: Socket): Promise<void> {
  return new Promise((resolve, reject) => {
    socket.once('connect', () => {
      // From here on the owner's listeners decide; without one an error would end the daemon.
      socket.off('error', reject)
      socket.on('error', () => {})
      resolve()
    })
    socket.once('error', reject)
  })
}
