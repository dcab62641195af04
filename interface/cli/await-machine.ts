import type { Resource } from '../../resources/kind.ts'
import type { VirtualMachine } from '../../resources/virtual-machine.ts'
import { timingsText } from './boot-timings.ts'
import type { Connection } from './command-module.ts'
import type { Invocation } from './invocation.ts'
import { virtualMachineName } from './kinds.ts'
import { asMachine } from './machine.ts'
import { createStatusLine } from './status-line.ts'
import { type Judge, type Verdict, waitForObject } from './wait.ts'

/** What a machine is waited for. */
export interface AwaitMachineInit {
  name: string
  /** For messages: `Ready`. */
  wanted: string
  timeoutMs: number
  judge: Judge
}

/**
 * Waits for a virtual machine and tells on standard error how it is coming along.
 * @throws waitTimedOut, waitFailed
 */
export async function awaitMachine(
  init: AwaitMachineInit,
  connection: Connection,
  invocation: Invocation,
): Promise<VirtualMachine> {
  const { clock, signal, stderr } = invocation
  const status = createStatusLine({ stream: stderr, clock })
  const { client, namespace } = connection
  const judge = (object: Resource | undefined): Verdict => {
    const verdict = init.judge(object)
    if (verdict.is === 'waiting') {
      status.show(`${init.name}: ${verdict.state}${timingsOf(object)}`)
    }
    return verdict
  }
  try {
    const waitInit = { ...init, judge, kind: virtualMachineName, namespace }
    const object = await waitForObject(waitInit, { client, clock, signal })
    if (object === undefined) throw new Error('no verdict on a deleted machine says reached')
    return asMachine(object)
  } finally {
    status.clear()
  }
}

/** How far a boot has come; nothing of one that is over. */
function timingsOf(object: Resource | undefined): string {
  if (object === undefined) return ''
  const machine = asMachine(object)
  const timings = timingsText(machine)
  const over = machine.status?.bootTimings?.sshMs !== undefined
  return timings === '' || over ? '' : ` (${timings})`
}
