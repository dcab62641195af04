import { chmod, chown, lstat, readFile, rename, rm } from 'node:fs/promises'
import { connect } from 'node:net'
import { dirname, join } from 'node:path'
import type { FastifyInstance } from 'fastify'
import { failure } from '../../base/errors.ts'
import { type Log, messageOf } from '../../base/log.ts'

/** Where to listen. */
export interface UnixSocketInit {
  path: string
  /** Its members may use the socket, when the host has that group. */
  group: string
}

/** sockaddr_un.sun_path without its closing zero, unix(7). */
const longestPathBytes = 107

/** A socket that is listened on; closing takes its name away. */
export interface ListeningSocket {
  close(): Promise<void>
}

/**
 * Listens on a unix socket of mode 0660. A socket that a dead daemon left is replaced; the new one
 * appears under its name only when it is listened on and has its mode and group.
 * @throws socketTaken when somebody answers there or it is no socket, socketPathTooLong
 */
export async function listenOnUnixSocket(
  app: FastifyInstance,
  init: UnixSocketInit,
  log: Log,
): Promise<ListeningSocket> {
  const { path } = init
  // Short, because sun_path is; the pid keeps two daemons apart that begin at the same moment.
  const temporary = join(dirname(path), `.${process.pid.toString(36)}`)
  const lengthBytes = Math.max(Buffer.byteLength(path), Buffer.byteLength(temporary))
  if (lengthBytes > longestPathBytes) {
    throw failure('socketPathTooLong', { path, lengthBytes, limitBytes: longestPathBytes })
  }
  await assertFree(path)
  await rm(temporary, { force: true })
  await app.listen({ path: temporary })
  await chmod(temporary, 0o660)
  await giveToGroup(temporary, init.group, log)
  const { ino } = await lstat(temporary)
  await rename(temporary, path)
  return {
    async close() {
      const current = await lstat(path).catch(() => undefined)
      // Another daemon may have come in the meantime: its socket stays.
      if (current?.ino === ino) await rm(path, { force: true })
    },
  }
}

async function assertFree(path: string): Promise<void> {
  const found = await lstat(path).catch(() => undefined)
  if (found === undefined) return
  if (!found.isSocket()) {
    throw failure('socketTaken', { path, detail: 'is there already, and is no socket' })
  }
  if (await answers(path)) throw failure('socketTaken', { path, detail: 'has a daemon behind it' })
}

function answers(path: string): Promise<boolean> {
  return new Promise(resolve => {
    const socket = connect(path)
    const settle = (result: boolean) => {
      socket.destroy()
      resolve(result)
    }
    socket.on('connect', () => settle(true))
    // Refused: nobody listens. Anything else (its queue is full, say) means that somebody may.
    socket.on('error', (error: NodeJS.ErrnoException) => settle(!isDead(error.code)))
  })
}

const isDead = (code: string | undefined): boolean => code === 'ECONNREFUSED' || code === 'ENOENT'

async function giveToGroup(path: string, group: string, log: Log): Promise<void> {
  try {
    const gid = await groupId(group)
    if (gid !== undefined) await chown(path, -1, gid)
  } catch (error) {
    log.warn({ group, error: messageOf(error) }, 'the socket could not be given to its group')
  }
}

/** The number of a group in /etc/group, group(5); undefined when there is none. */
async function groupId(group: string): Promise<number | undefined> {
  const text = await readFile('/etc/group', 'utf8')
  const line = text.split('\n').find(candidate => candidate.startsWith(`${group}:`))
  const gid = Number(line?.split(':')[2] || Number.NaN)
  return Number.isInteger(gid) ? gid : undefined
}
