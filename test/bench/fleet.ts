import { existsSync } from 'node:fs'
import { join } from 'node:path'
import type { Bench, BenchContext, Figure } from './harness.ts'

/** What a fleet promises, part by part; each is a bench of its own too. */
const parts = [
  'scheduler',
  'placements',
  'gossip',
  'fleet-idle',
  'fleet-newcomer',
  'fleet-failover',
]

/** All of them, one after the other. */
export const bench: Bench = {
  timeoutMs: 120 * 60_000,
  async run(context) {
    const figures: Record<string, Figure> = {}
    for (const name of parts) {
      const path = join(import.meta.dirname, `${name}.ts`)
      if (!existsSync(path)) continue
      context.say(`${name}:`)
      const part: { bench: Bench } = await import(path)
      Object.assign(figures, await runAlone(part.bench, context))
    }
    return figures
  },
}

/** What a part started is ended before the next one begins: it would take time from that. */
async function runAlone(part: Bench, context: BenchContext): Promise<Record<string, Figure>> {
  const steps: (() => unknown)[] = []
  const cleanUp = async () => {
    for (const step of steps.splice(0)) await step()
  }
  context.afterwards(cleanUp)
  const signal = AbortSignal.any([context.signal, AbortSignal.timeout(part.timeoutMs)])
  try {
    return await part.run({ ...context, signal, afterwards: step => void steps.unshift(step) })
  } finally {
    await cleanUp()
  }
}
