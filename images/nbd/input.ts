import type { Socket } from 'node:net'

/** What comes from a client, by bytes and no faster than it is asked for. */
export interface Input {
  /** Exactly so many bytes; undefined when the connection ended before. */
  take(lengthBytes: number): Promise<Buffer | undefined>
  /** Passes over bytes without keeping them. @returns whether they came */
  passOver(lengthBytes: number): Promise<boolean>
}

const passedAtOnce = 65_536

/** Reads a socket; one reader at a time. */
export function createInput(socket: Socket): Input {
  let ended = false
  let wake = (): void => {}
  const end = (): void => {
    ended = true
    wake()
  }
  socket.on('readable', () => wake())
  for (const event of ['end', 'error', 'close']) socket.on(event, end)

  const take = async (lengthBytes: number): Promise<Buffer | undefined> => {
    if (lengthBytes === 0) return Buffer.alloc(0)
    for (;;) {
      const { promise, resolve } = Promise.withResolvers<void>()
      wake = resolve
      const bytes: Buffer | null = socket.destroyed ? null : socket.read(lengthBytes)
      // At its end a socket gives what is left, however little.
      if (bytes !== null) return bytes.length === lengthBytes ? bytes : undefined
      if (ended || socket.destroyed) return undefined
      await promise
    }
  }
  const passOver = async (lengthBytes: number): Promise<boolean> => {
    for (let left = lengthBytes; left > 0; left -= passedAtOnce) {
      if ((await take(Math.min(left, passedAtOnce))) === undefined) return false
    }
    return true
  }
  return { take, passOver }
}
