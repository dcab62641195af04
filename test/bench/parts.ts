import { join } from 'node:path'
import type { Bench, BenchContext, Figure } from './harness.ts'

/** Runs benches of this folder, one after the other. */
export async function runParts(
  names: readonly string[],
  context: BenchContext,
): Promise<Record<string, Figure>> {
  const figures: Record<string, Figure> = {}
  for (const name of names) {
    context.say(`${name}:`)
    const part: { bench: Bench } = await import(join(import.meta.dirname, `${name}.ts`))
    Object.assign(figures, await runAlone(part.bench, context))
  }
  return figures
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
