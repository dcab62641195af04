import { failure, MacfleetError, messageOf } from '../../base/errors.ts'
import { isErrno } from '../../base/files.ts'

const notThere: Record<string, string> = {
  ENOENT: 'there is no such socket',
  ECONNREFUSED: 'the socket is there, the daemon is not',
  ENOTSOCK: 'that is no socket',
  EINVAL: 'the path is too long for a socket',
}

/** What a failed request means to the user; errors that say so already stay as they are. */
export function connectionError(thrown: unknown, socket: string): unknown {
  if (thrown instanceof MacfleetError) return thrown
  if (thrown instanceof Error && thrown.name === 'AbortError') return thrown
  for (const [code, detail] of Object.entries(notThere)) {
    if (isErrno(thrown, code)) return failure('daemonNotThere', { socket, detail })
  }
  if (isErrno(thrown, 'EACCES') || isErrno(thrown, 'EPERM')) {
    return failure('socketForbidden', { socket })
  }
  return failure('connectionBroke', { detail: messageOf(thrown) }, { cause: thrown })
}
