import { type Clock, sleep } from '../../base/clock.ts'
import type { Resource } from '../../resources/kind.ts'
import type { ApiClient } from './api-client.ts'
import { virtualMachineName } from './kinds.ts'
import { asMachine, phaseOf } from './machine.ts'
import { listObjects } from './resource-client.ts'

/** How far a drain is. */
export interface Draining {
  isDone: boolean
  message: string
}

const askMs = 500
/** Machines named in a message; the rest are counted. */
const named = 5

/** The machines that run on a host, again and again. */
export async function* machinesOn(
  host: string,
  client: ApiClient,
  { clock, signal }: { clock: Clock; signal: AbortSignal },
): AsyncGenerator<Resource[]> {
  for (;;) {
    const { items } = await listObjects(client, virtualMachineName, {})
    yield items.filter(item => isRunningOn(item, host))
    await sleep(clock, askMs, signal)
  }
}

function isRunningOn(object: Resource, host: string): boolean {
  const machine = asMachine(object)
  const phase = phaseOf(machine)
  return machine.status?.host === host && phase !== 'Stopped' && phase !== 'Failed'
}

/** Whether nothing runs any more; else who is moved and who is waited for. */
export function judgeDrained(machines: readonly Resource[]): Draining {
  if (machines.length === 0) return { isDone: true, message: '' }
  const list = machines.map(asMachine)
  const moved = list.filter(({ spec }) => spec.onHostLoss === 'Replace')
  const waited = list.filter(({ spec }) => spec.onHostLoss !== 'Replace')
  const parts = [
    ...(moved.length > 0 ? [`${names(moved)} go elsewhere`] : []),
    ...(waited.length > 0 ? [`${names(waited)} must be stopped or deleted`] : []),
  ]
  return { isDone: false, message: parts.join('; ') }
}

function names(machines: readonly Resource[]): string {
  const some = machines
    .slice(0, named)
    .map(({ metadata }) => `${metadata.namespace}/${metadata.name}`)
  const rest = machines.length - some.length
  return [...some, ...(rest > 0 ? [`${rest} more`] : [])].join(', ')
}
