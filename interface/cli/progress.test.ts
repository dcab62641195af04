import { PassThrough } from 'node:stream'
import { describe, expect, test } from 'vitest'
import { createManualClock } from '../../base/manual-clock.ts'
import { bar, createProgress, progressText } from './progress.ts'
import { createStatusLine, formatElapsed } from './status-line.ts'

/** A stream that remembers; a terminal of 80 columns when asked for. */
function stream(isTTY: boolean) {
  const through = Object.assign(new PassThrough(), { isTTY, columns: 80 })
  const written = () => String(through.read() ?? '')
  return { through, written }
}

const MiB = 2 ** 20

describe('progress', () => {
  test('tells amount, rate and time left', () => {
    const state = { label: 'Sending', doneBytes: 25 * MiB, totalBytes: 100 * MiB, rate: 5 * MiB }
    expect(progressText(state, false)).toBe('Sending   25 %  25Mi/100Mi  5Mi/s  15s left')
    expect(progressText(state, true)).toContain(`[${'█'.repeat(6)}${' '.repeat(18)}]`)
    const unknown = { ...state, totalBytes: undefined }
    expect(progressText(unknown, true)).toBe('Sending  25Mi  5Mi/s')
  })

  test('fills its bar in eighths, and never beyond', () => {
    expect(bar(0, 4)).toBe('    ')
    expect(bar(0.5, 4)).toBe('██  ')
    expect(bar(0.53125, 4)).toBe('██▏ ')
    expect(bar(2, 4)).toBe('████')
  })

  test('draws in place on a terminal, at most ten times a second', async () => {
    const { through, written } = stream(true)
    const clock = createManualClock()
    const progress = createProgress({ stream: through, clock })
    for (let step = 0; step <= 100; step++) {
      progress.update('Sending', step * MiB, 100 * MiB)
      await clock.advance(10)
    }
    const text = written()
    expect(text).not.toContain('\n')
    expect(text.split('\r').length - 1).toBeLessThanOrEqual(11)
    expect(text).toContain('Mi/s')
    progress.clear()
    expect(written()).toBe('\r\u001b[K')
  })

  test('prints a line now and then where nobody watches', async () => {
    const { through, written } = stream(false)
    const clock = createManualClock()
    const progress = createProgress({ stream: through, clock })
    for (let second = 0; second <= 20; second++) {
      progress.update('Sending', second * MiB, 100 * MiB)
      await clock.advance(1000)
    }
    progress.clear()
    const lines = written().trim().split('\n')
    expect(lines).toHaveLength(5)
    expect(lines.at(-1)).toBe('Sending   20 %  20Mi/100Mi  1Mi/s  1m20s left')
  })
})

describe('a status line', () => {
  test('is drawn anew with the time on a terminal', async () => {
    const { through, written } = stream(true)
    const clock = createManualClock()
    const line = createStatusLine({ stream: through, clock })
    line.show('web: Starting')
    await clock.advance(1000)
    expect(written().split('\r\u001b[K').at(-1)).toBe('web: Starting · 1.0s')
    line.clear()
    await clock.advance(1000)
    expect(written()).toBe('\r\u001b[K')
    expect(clock.pendingTimers()).toBe(0)
  })

  test('is printed when it changes elsewhere, without control characters', () => {
    const { through, written } = stream(false)
    const line = createStatusLine({ stream: through, clock: createManualClock() })
    for (const text of ['a', 'a', 'b\u001b[2J']) line.show(text)
    line.clear()
    expect(written()).toBe('a\nb [2J\n')
  })

  test('says times as people do', () => {
    expect([0, 9_940, 12_000, 65_000].map(formatElapsed)).toEqual(['0.0s', '9.9s', '12s', '1m05s'])
  })
})
