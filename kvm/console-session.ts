import { Duplex } from 'node:stream'
import { failure } from '../base/errors.ts'

/**
 * One user's end of a serial console: reading gives what the guest says, writing is typing. It ends
 * with `consoleTooSlow` when its user reads too little, because the guest must not wait.
 */
export class ConsoleSession extends Duplex {
  readonly #backlogBytes: number
  readonly #type: (bytes: Buffer, done: () => void) => void
  /** What the guest said while the log was being read; undefined once the session has begun. */
  #early: Buffer[] | undefined = []
  #earlyBytes = 0
  #finished = false

  /**
   * @param backlogBytes that may wait to be read
   * @param type takes what the user types, and calls back when it wants more
   */
  constructor(backlogBytes: number, type: (bytes: Buffer, done: () => void) => void) {
    super({ allowHalfOpen: false })
    this.#backlogBytes = backlogBytes
    this.#type = type
  }

  /** Gives the log's end, and then what was heard meanwhile and is not in it yet. */
  begin(tail: Buffer): void {
    const early = Buffer.concat(this.#early ?? [])
    this.#early = undefined
    if (this.destroyed || this.#finished) return
    if (tail.length > 0) this.push(tail)
    this.hear(early.subarray(overlap(tail, early)))
  }

  /** Takes what the guest says. */
  hear(bytes: Buffer): void {
    if (this.destroyed || this.#finished || bytes.length === 0) return
    const waitingBytes = this.#early === undefined ? this.readableLength : this.#earlyBytes
    if (waitingBytes + bytes.length > this.#backlogBytes) {
      this.destroy(failure('consoleTooSlow', { limitBytes: this.#backlogBytes }))
    } else if (this.#early !== undefined) {
      this.#early.push(bytes)
      this.#earlyBytes += bytes.length
    } else {
      this.push(bytes)
    }
  }

  /** Ends the session after what the guest has said; nothing can be typed any more. */
  finish(): void {
    if (this.destroyed) return
    this.#finished = true
    this.push(null)
    this.end()
  }

  override _read(): void {
    // What there is has been pushed: a guest can't be asked to say more.
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: () => void): void {
    this.#type(chunk, done)
  }
}

/** A guest says no more than this in the time that reading the end of its log takes. */
const overlapBytesMax = 16 * 1024

/**
 * How many bytes at the start of `early` are already the end of `tail`: the most that fit. QEMU
 * writes the log right after the socket, so what we heard is nearly always in it. When it is not,
 * bytes that look like the end of the log by chance are left out here; the log has them.
 */
function overlap(tail: Buffer, early: Buffer): number {
  for (let length = Math.min(tail.length, early.length, overlapBytesMax); length > 0; length--) {
    if (tail.subarray(-length).equals(early.subarray(0, length))) return length
  }
  return 0
}
