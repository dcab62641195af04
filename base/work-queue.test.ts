import { expect, test } from 'vitest'
import { silentLog } from './log.ts'
import { createManualClock } from './manual-clock.ts'
import { createWorkQueue } from './work-queue.ts'

test('a handler that adds its own key at once is called again when it has ended', async () => {
  const clock = createManualClock()
  let running = 0
  let most = 0
  let calls = 0
  const queue = createWorkQueue(
    {
      async handle(key) {
        most = Math.max(most, ++running)
        if (++calls === 1) queue.add(key)
        await Promise.resolve()
        running--
        return undefined
      },
      backoff: { firstMs: 100, mostMs: 100 },
    },
    { clock, log: silentLog },
  )
  queue.add('a')
  await clock.advance(0)
  expect({ most, calls, size: queue.size() }).toEqual({ most: 1, calls: 2, size: 0 })
})
