import { open } from 'node:fs/promises'
import type { DiskSpace } from './disk-space.ts'
import { refusalFailure } from './inspect-header.ts'
import { refuse } from './refusal.ts'

/** Decides, as bytes arrive, whether more are let in. */
export interface Admission {
  /** @throws imageRefused (tooLarge), diskFull */
  more(doneBytes: number): Promise<void> | void
  /** @throws imageRefused (truncated) when fewer or more bytes came than were announced */
  finish(doneBytes: number): void
}

/** Asking the system how much is free costs a call: once for so many bytes is enough. */
const admissionBytes = 64 * 1024 * 1024
/** The same for files of which most are small. */
export const smallStepBytes = 2 * 1024 * 1024

/**
 * Lets in at most `limitBytes`, as long as the disk keeps its reserve free.
 * @param stepBytes room that is asked for at once when it is not known how much comes
 */
export function createAdmission(
  space: DiskSpace,
  limitBytes: number,
  announcedBytes: number | undefined,
  stepBytes = admissionBytes,
): Admission {
  let askAtBytes = 0
  return {
    more(doneBytes) {
      if (doneBytes > limitBytes) {
        throw refusalFailure(
          refuse('tooLarge', `it has more than the limit of ${limitBytes} bytes`),
        )
      }
      if (doneBytes < askAtBytes) return
      askAtBytes = doneBytes + stepBytes
      const restBytes = (announcedBytes ?? Number.POSITIVE_INFINITY) - doneBytes
      return space.demand(Math.max(0, Math.min(stepBytes, restBytes)))
    },
    finish(doneBytes) {
      if (announcedBytes === undefined || announcedBytes === doneBytes) return
      const detail = `${doneBytes} bytes arrived where ${announcedBytes} were announced`
      throw refusalFailure(refuse('truncated', detail, 'Send it again'))
    },
  }
}

/** How a stream is written down. */
export interface SpoolOptions {
  admission: Admission
  onProgress(doneBytes: number): void
  signal: AbortSignal
  /** Sees every part, in order; for hashing. */
  onPart?(part: Uint8Array): void
}

/**
 * Writes a stream into a new file.
 * @returns how many bytes came
 */
export async function spoolStream(
  path: string,
  stream: AsyncIterable<Uint8Array>,
  options: SpoolOptions,
): Promise<number> {
  const handle = await open(path, 'wx', 0o600)
  try {
    let doneBytes = 0
    for await (const part of stream) {
      options.signal.throwIfAborted()
      await options.admission.more(doneBytes + part.length)
      await handle.writeFile(part)
      options.onPart?.(part)
      doneBytes += part.length
      options.onProgress(doneBytes)
    }
    options.admission.finish(doneBytes)
    await handle.sync()
    return doneBytes
  } finally {
    await handle.close()
  }
}
