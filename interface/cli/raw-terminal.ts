import type { InputStream, Invocation } from './invocation.ts'

/** Ctrl-], which leaves a console, as telnet and virsh have it. */
export const escapeByte = 0x1d

/**
 * Runs `act` with the terminal in raw mode: each key is handed over at once, and Ctrl-C is a key
 * like any other. The mode of before comes back however `act` ends. Without a terminal nothing
 * changes.
 */
export async function withRawTerminal<T>(
  { stdin }: Pick<Invocation, 'stdin'>,
  act: () => Promise<T>,
): Promise<T> {
  if (stdin.isTTY !== true) return act()
  stdin.setRawMode?.(true)
  try {
    return await act()
  } finally {
    stdin.setRawMode?.(false)
    stdin.pause()
  }
}

/**
 * What is typed up to the escape key, chunk by chunk.
 * @returns whether the escape key ended it, and not the end of the input
 */
export async function* readKeys(
  stdin: InputStream,
  signal: AbortSignal,
): AsyncGenerator<Buffer, boolean> {
  for await (const chunk of chunksOf(stdin, signal)) {
    const at = chunk.indexOf(escapeByte)
    if (at < 0) {
      yield chunk
      continue
    }
    if (at > 0) yield chunk.subarray(0, at)
    return true
  }
  return false
}

/** The chunks of a stream until it or the signal ends; the stream stays usable, unlike with `for await`. */
export async function* chunksOf(stream: InputStream, signal: AbortSignal): AsyncGenerator<Buffer> {
  const waiting: Buffer[] = []
  let ended = false
  let wake = () => {}
  const onData = (chunk: Buffer | string) => {
    waiting.push(Buffer.from(chunk))
    // One chunk at a time is held: what is typed ahead waits in the terminal.
    stream.pause()
    wake()
  }
  const onEnd = () => {
    ended = true
    wake()
  }
  stream.on('data', onData).on('end', onEnd).on('error', onEnd).on('close', onEnd)
  signal.addEventListener('abort', onEnd)
  try {
    while (!signal.aborted) {
      const chunk = waiting.shift()
      if (chunk !== undefined) yield chunk
      else if (ended) return
      else {
        const woken = new Promise<void>(resolve => {
          wake = resolve
        })
        stream.resume()
        await woken
      }
    }
  } finally {
    stream.off('data', onData).off('end', onEnd).off('error', onEnd).off('close', onEnd)
    signal.removeEventListener('abort', onEnd)
    stream.pause()
  }
}
