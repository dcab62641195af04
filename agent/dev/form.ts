import { type Clock, sleep } from '../../base/clock.ts'
import { failure, messageOf } from '../../base/errors.ts'
import type { DevHost } from './host.ts'

/** What forming a fleet needs. */
export interface FormComponents {
  clock: Clock
  /** Told in a line what is done next. */
  say?(line: string): void
}

const readyMs = 120_000
const lookMs = 200

/**
 * Makes one fleet of hosts whose daemons run, as an operator would: by the command line. All are
 * Ready when this resolves.
 * @throws devFailed with what the command line said
 */
export async function formFleet(
  hosts: readonly DevHost[],
  components: FormComponents,
): Promise<void> {
  const [first, ...others] = hosts
  if (first === undefined) return
  try {
    components.say?.(`${first.name} becomes a fleet`)
    await first.macfleet(['cluster', 'init'])
    if (others.length > 0) await joinFleet(first, others, components)
    await untilReady(first, hosts, components)
  } catch (error) {
    throw failure('devFailed', { detail: `the hosts are no fleet: ${messageOf(error)}` })
  }
}

/**
 * Lets hosts whose daemons run join the fleet that a host is in, all at once.
 * @throws commandFailed
 */
export async function joinFleet(
  member: DevHost,
  hosts: readonly DevHost[],
  { say }: Pick<FormComponents, 'say'> = {},
): Promise<void> {
  const token = await createToken(member, hosts)
  const join = async (host: DevHost): Promise<void> => {
    await host.macfleet(['cluster', 'join', '-'], token)
    say?.(`${host.name} has joined`)
  }
  await Promise.all(hosts.map(join))
}

/** A token that lets these hosts in without anybody's approval. @throws commandFailed */
export async function createToken(member: DevHost, hosts: readonly DevHost[]): Promise<string> {
  const machines = hosts.flatMap(host => ['--machine-id', host.machineId])
  const uses = ['--uses', String(hosts.length)]
  return (await member.macfleet(['cluster', 'token', 'create', ...uses, ...machines])).trim()
}

/**
 * Waits until a host says that these hosts are Ready.
 * @throws devFailed naming those that are not
 */
export async function untilReady(
  member: DevHost,
  hosts: readonly DevHost[],
  { clock }: Pick<FormComponents, 'clock'>,
): Promise<void> {
  const deadlineMs = clock.monotonicMs() + readyMs
  for (;;) {
    const ready = await readyHosts(member)
    const missing = hosts.filter(host => !ready.has(host.name)).map(host => host.name)
    if (missing.length === 0) return
    if (clock.monotonicMs() > deadlineMs) {
      throw failure('devFailed', { detail: `not ready in time: ${missing.join(', ')}` })
    }
    await sleep(clock, lookMs)
  }
}

interface HostList {
  items: {
    metadata: { name: string }
    status?: { conditions?: { type: string; status: string }[] }
  }[]
}

async function readyHosts(member: DevHost): Promise<Set<string>> {
  const { items } = JSON.parse(await member.macfleet(['get', 'hosts', '-o', 'json'])) as HostList
  const ready = items.filter(({ status }) =>
    status?.conditions?.some(at => at.type === 'Ready' && at.status === 'True'),
  )
  return new Set(ready.map(host => host.metadata.name))
}
