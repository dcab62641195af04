import { describe, expect, it } from 'vitest'
import { endingOf } from './ending.ts'

const clean = { code: 0, signal: null, stderr: '' }
const killed = { code: null, signal: 'SIGKILL', stderr: '' }

describe('endingOf', () => {
  it('finds no end while QEMU runs', () => {
    for (const runState of ['running', 'paused', 'io-error', undefined] as const) {
      expect(endingOf({ runState, meant: false, exit: undefined })).toBeUndefined()
      expect(endingOf({ runState, meant: true, exit: undefined })).toBeUndefined()
    }
  })

  it('believes the run state first, whether QEMU is still there or how it went', () => {
    for (const exit of [undefined, clean, killed]) {
      for (const meant of [true, false]) {
        expect(endingOf({ runState: 'shutdown', meant, exit })?.cause).toBe('GuestPoweredOff')
        expect(endingOf({ runState: 'guest-panicked', meant, exit })?.cause).toBe('GuestPanicked')
      }
    }
  })

  it('tells an end that we meant from a death', () => {
    expect(endingOf({ runState: 'running', meant: true, exit: killed })?.cause).toBe('Killed')
    expect(endingOf({ runState: undefined, meant: true, exit: clean })?.cause).toBe('Killed')
    expect(endingOf({ runState: 'running', meant: false, exit: killed })).toEqual({
      cause: 'QemuDied',
      message: 'QEMU was killed by SIGKILL; it said nothing',
    })
    expect(endingOf({ runState: 'running', meant: false, exit: clean })?.message).toBe(
      'QEMU ended without being told to; it said nothing',
    )
  })

  it("gives the end of QEMU's stderr, without what could fool a terminal", () => {
    const stderr = `${'x'.repeat(5000)}\u001b[2Jqemu: could not open disk\n`
    const exit = { code: 1, signal: null, stderr }
    const ending = endingOf({ runState: undefined, meant: false, exit })
    expect(ending?.message).toMatch(
      /^QEMU ended with exit code 1: x+\[2Jqemu: could not open disk$/,
    )
    expect(ending?.message.length).toBeLessThan(1100)
  })
})
