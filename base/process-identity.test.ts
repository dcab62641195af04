import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { setTimeout } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { identifyChild, isAlive } from './process-identity.ts'

/** Its first thread ends (system call 60), so that the process looks like a zombie; the other stays. */
const firstThreadEnds = `
import ctypes, os, sys, threading
threading.Thread(target=lambda: sys.stdin.read() or os._exit(0)).start()
ctypes.CDLL(None).syscall(60, 0)
`

test('a zombie whose threads have not all ended is not dead yet', async () => {
  const child = spawn('python3', ['-c', firstThreadEnds], { stdio: ['pipe', 'ignore', 'inherit'] })
  const ended = once(child, 'exit')
  const identity = identifyChild(child.pid ?? 0)
  if (identity === undefined) throw new Error('python3 was not started')
  try {
    const deadline = performance.now() + 10_000
    while (!readFileSync(`/proc/${identity.pid}/stat`, 'utf8').includes(') Z ')) {
      if (performance.now() > deadline) throw new Error('its first thread did not end')
      await setTimeout(10)
    }
    expect(isAlive(identity)).toBe(true)
  } finally {
    child.stdin.end()
    await ended
  }
  expect(isAlive(identity)).toBe(false)
})
