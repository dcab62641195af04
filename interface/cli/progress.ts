import type { Clock } from '../../base/clock.ts'
import { approximateBytes } from '../../resources/quantity.ts'
import type { OutputStream } from './invocation.ts'
import { formatElapsed } from './status-line.ts'
import { padTo, printable, shorten } from './text.ts'

/** Shows how far work with bytes has come, on standard error. */
export interface Progress {
  /** @param totalBytes undefined when nobody knows */
  update(label: string, doneBytes: number, totalBytes?: number): void
  /** Takes the bar away. */
  clear(): void
}

/** Where progress is shown. */
export interface ProgressComponents {
  stream: OutputStream
  clock: Clock
}

const drawEveryMs = 100
/** Where nobody watches (a log of a build), a line now and then tells that it lives. */
const printEveryMs = 5_000
/** Weight of the newest second in the rate: an exponential mean over about five seconds. */
const rateWeight = 0.2
const barColumns = 24

const eraseLine = '\r\u001b[K'

/** A bar of `columns` characters, filled to `fraction` in eighths. */
export function bar(fraction: number, columns: number): string {
  const eighths = Math.round(Math.max(0, Math.min(1, fraction)) * columns * 8)
  const full = '█'.repeat(Math.floor(eighths / 8))
  const part = eighths % 8 === 0 ? '' : (' ▏▎▍▌▋▊▉'[eighths % 8] ?? '')
  return (full + part).padEnd(columns)
}

/** What is known at one moment. */
export interface ProgressState {
  label: string
  doneBytes: number
  totalBytes: number | undefined
  /** Bytes a second; undefined before anything was measured. */
  rate: number | undefined
}

/** `Copying  [████    ]  42 %  1.2Gi/2.9Gi  310Mi/s  5.6s left`. */
export function progressText(state: ProgressState, withBar: boolean): string {
  const { label, doneBytes, totalBytes, rate } = state
  const parts = [printable(label)]
  if (totalBytes !== undefined && totalBytes > 0) {
    const fraction = Math.min(1, doneBytes / totalBytes)
    if (withBar) parts.push(`[${bar(fraction, barColumns)}]`)
    parts.push(`${String(Math.floor(fraction * 100)).padStart(3)} %`)
    parts.push(`${approximateBytes(doneBytes)}/${approximateBytes(totalBytes)}`)
  } else {
    parts.push(approximateBytes(doneBytes))
  }
  if (rate !== undefined && rate > 0) {
    parts.push(`${approximateBytes(Math.round(rate))}/s`)
    const leftBytes = (totalBytes ?? doneBytes) - doneBytes
    if (leftBytes > 0) parts.push(`${formatElapsed((leftBytes / rate) * 1000)} left`)
  }
  return parts.join('  ')
}

/** Makes the progress of one piece of work. */
export function createProgress({ stream, clock }: ProgressComponents): Progress {
  const onTerminal = stream.isTTY === true
  const everyMs = onTerminal ? drawEveryMs : printEveryMs
  let shownMs = Number.NEGATIVE_INFINITY
  let shownLabel = ''
  let drawn = false
  let measured = { atMs: clock.monotonicMs(), doneBytes: 0 }
  let rate: number | undefined

  const measure = (nowMs: number, doneBytes: number) => {
    const seconds = (nowMs - measured.atMs) / 1000
    if (seconds < 0.25) return
    const latest = Math.max(0, doneBytes - measured.doneBytes) / seconds
    const weight = Math.min(1, rateWeight * Math.max(1, seconds))
    rate = rate === undefined ? latest : rate + weight * (latest - rate)
    measured = { atMs: nowMs, doneBytes }
  }

  return {
    update(label, doneBytes, totalBytes) {
      const nowMs = clock.monotonicMs()
      if (label !== shownLabel) {
        // Another stage counts from its own beginning.
        rate = undefined
        measured = { atMs: nowMs, doneBytes }
      }
      measure(nowMs, doneBytes)
      if (label === shownLabel && nowMs - shownMs < everyMs) return
      shownMs = nowMs
      shownLabel = label
      const text = progressText({ label, doneBytes, totalBytes, rate }, onTerminal)
      if (!onTerminal) {
        stream.write(`${text}\n`)
        return
      }
      const columns = (stream.columns ?? 80) - 1
      stream.write(`\r${padTo(shorten(text, columns), columns, line => line.length)}`)
      drawn = true
    },
    clear() {
      if (drawn) stream.write(eraseLine)
      drawn = false
    },
  }
}
