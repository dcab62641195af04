import type { Command } from 'commander'
import { failure } from '../../../base/errors.ts'
import type { Resource } from '../../../resources/kind.ts'
import { connect, optionsOf } from '../command-module.ts'
import { type Draining, judgeDrained, machinesOn } from '../drain.ts'
import { durationOption } from '../duration-option.ts'
import type { Invocation } from '../invocation.ts'
import { hostName, qualifiedName } from '../kinds.ts'
import { note, print } from '../output.ts'
import { forEach } from '../power.ts'
import { mergeObject } from '../resource-client.ts'
import { createStatusLine } from '../status-line.ts'

/** `macfleet host`. */
export function define(command: Command, invocation: Invocation): void {
  defineChange(command, invocation, {
    verb: 'cordon',
    summary: 'let hosts take no new machines',
    done: 'cordoned',
    spec: { schedulable: false },
  })
  defineChange(command, invocation, {
    verb: 'uncordon',
    summary: 'let hosts take machines again',
    done: 'uncordoned',
    spec: { schedulable: true, drain: null },
  })
  defineDrain(command.command('drain'), invocation)
  defineAction(command, invocation, {
    verb: 'approve',
    summary: 'let in hosts that wait to join',
    done: 'approved',
  })
  defineAction(command, invocation, {
    verb: 'remove',
    summary: 'take hosts without machines, or forgotten ones, out of the fleet',
    done: 'removed',
  })
  defineForget(command.command('forget'), invocation)
  command.addHelpText(
    'after',
    `
Examples:
  macfleet host drain mac-3          before its maintenance
  macfleet host uncordon mac-3       after it
  macfleet host forget mac-4 --powered-off`,
  )
}

interface Change {
  verb: string
  summary: string
  done: string
  spec: object
}

function defineChange(parent: Command, invocation: Invocation, change: Change): void {
  const command = parent.command(change.verb).description(change.summary)
  command.argument('<hosts...>', 'hosts').action(async (names: string[]) => {
    const { client, namespace } = await connect(invocation, command)
    await forEach(names, invocation, async name => {
      await mergeObject(client, hostName, { namespace, name }, { spec: change.spec })
      await print(invocation, `${qualifiedName(hostName, name)} ${change.done}`)
    })
  })
}

function defineAction(
  parent: Command,
  invocation: Invocation,
  { verb, summary, done }: Omit<Change, 'spec'>,
): void {
  const command = parent.command(verb).description(summary)
  command.argument('<hosts...>', 'hosts').action(async (names: string[]) => {
    const { client } = await connect(invocation, command)
    await forEach(names, invocation, async name => {
      await client.request('POST', `/fleet/hosts/${encodeURIComponent(name)}/${verb}`)
      await print(invocation, `${qualifiedName(hostName, name)} ${done}`)
    })
  })
}

function defineForget(command: Command, invocation: Invocation): void {
  command
    .description('give up a host that is lost for good, with the disks of its machines')
    .argument('<host>', 'the host')
    .option('--powered-off', 'you vouch that it does not run: its machines may start elsewhere')
    .action(async (name: string) => {
      const { poweredOff } = optionsOf<{ poweredOff?: boolean }>(command)
      if (poweredOff !== true) {
        const detail = 'look that the host is powered off, then add --powered-off'
        throw failure('usageWrong', { detail, command: 'macfleet host forget' })
      }
      const { client } = await connect(invocation, command)
      await client.request('POST', `/fleet/hosts/${encodeURIComponent(name)}/forget`)
      await print(invocation, `${qualifiedName(hostName, name)} forgotten`)
    })
}

function defineDrain(command: Command, invocation: Invocation): void {
  command
    .description('move away what may run elsewhere and wait until nothing runs on a host')
    .argument('<host>', 'the host')
    .option('--no-wait', 'only begin')
    .option('--timeout <duration>', 'how long to wait', '10m')
    .addHelpText(
      'after',
      `
Machines with \`onHostLoss: Replace\` are shut down and started anew elsewhere. The others have
their disk here: they are waited for until somebody stops or deletes them.
\`macfleet host uncordon\` takes it back.`,
    )
    .action(async (name: string) => {
      const options = optionsOf<{ wait: boolean; timeout: string }>(command)
      const timeoutMs = durationOption(options.timeout, '--timeout', 'macfleet host drain')
      const connection = await connect(invocation, command)
      const { client, namespace } = connection
      const spec = { schedulable: false, drain: true }
      await mergeObject(client, hostName, { namespace, name }, { spec })
      await print(invocation, `${qualifiedName(hostName, name)} draining`)
      if (!options.wait) return
      const { clock, signal, stderr } = invocation
      const line = createStatusLine({ stream: stderr, clock })
      const deadlineMs = clock.monotonicMs() + timeoutMs
      try {
        for await (const machines of machinesOn(name, client, { clock, signal })) {
          const draining: Draining = judgeDrained(machines)
          if (draining.isDone) break
          line.show(draining.message)
          if (clock.monotonicMs() > deadlineMs) throw notDrained(name, draining, machines)
        }
      } finally {
        line.clear()
      }
      await note(invocation, `Nothing runs on ${name}`)
    })
}

function notDrained(name: string, { message }: Draining, machines: readonly Resource[]): Error {
  return failure('hostNotDrained', { host: name, count: machines.length, detail: message })
}
