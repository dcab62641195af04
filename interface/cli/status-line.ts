import type { Clock, Timer } from '../../base/clock.ts'
import type { OutputStream } from './invocation.ts'
import { printable, shorten } from './text.ts'

/** Tells how long work is going, on standard error. */
export interface StatusLine {
  /** What is going on now. On a terminal it is drawn in place, elsewhere printed when it changes. */
  show(text: string): void
  /** Takes the line away, so that something else can be printed. */
  clear(): void
}

/** Where a status line is drawn. */
export interface StatusLineComponents {
  stream: OutputStream
  clock: Clock
}

/** Time between drawings: fast enough to look alive, slow enough to cost nothing. */
const redrawMs = 200

const eraseLine = '\r\u001b[K'

/** Seconds as people say them: `0.8s`, `12s`, `3m05s`. */
export function formatElapsed(elapsedMs: number): string {
  const seconds = elapsedMs / 1000
  if (seconds < 10) return `${seconds.toFixed(1)}s`
  if (seconds < 60) return `${Math.floor(seconds)}s`
  const minutes = Math.floor(seconds / 60)
  return `${minutes}m${String(Math.floor(seconds % 60)).padStart(2, '0')}s`
}

/** Makes a status line; on a terminal it carries the time since it was made. */
export function createStatusLine(components: StatusLineComponents): StatusLine {
  return components.stream.isTTY === true ? drawn(components) : printed(components)
}

function printed({ stream }: StatusLineComponents): StatusLine {
  let last = ''
  return {
    show(text) {
      if (text === last) return
      last = text
      stream.write(`${printable(text)}\n`)
    },
    clear: () => {},
  }
}

function drawn({ stream, clock }: StatusLineComponents): StatusLine {
  const startMs = clock.monotonicMs()
  let current = ''
  let timer: Timer | undefined
  const draw = () => {
    const text = `${printable(current)} · ${formatElapsed(clock.monotonicMs() - startMs)}`
    stream.write(eraseLine + shorten(text, (stream.columns ?? 80) - 1))
    timer = clock.setTimer(redrawMs, draw)
  }
  return {
    show(text) {
      current = text
      timer?.cancel()
      draw()
    },
    clear() {
      if (timer === undefined) return
      timer.cancel()
      timer = undefined
      stream.write(eraseLine)
    },
  }
}
