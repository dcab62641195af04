import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import type { DevHost } from '../../agent/dev/host.ts'
import { runCommand } from '../../base/command.ts'
import { defaultPortRange } from '../../kvm/ports.ts'

/** What machines leave on a host, read from the kernel and the disk: nobody's word for anything. */
export interface HostTraces {
  host: string
  /** The uid of each QEMU process's machine, as often as it runs. */
  guests: string[]
  daemons: number
  guardians: number
  etcds: number
  /** Command lines of processes that are none of these. */
  others: string[]
  /** Uids that have a folder on disk. */
  folders: string[]
  /** Names in the folder of sockets: the first twelve digits of a uid. */
  sockets: string[]
  /** Machines that the guardian has on record. */
  guarded: string[]
  /** Names, beside its own, that each image's disk has: one for each machine that uses it. */
  imageUses: number[]
  /** TCP ports in the range of forwarded ones on which somebody listens. */
  ports: number[]
  /** Those that the machines with folders were given. */
  forwards: number[]
  /** Users of guests' folders. */
  users: number[]
  /** Tables of the firewall: one, for all guests of the host. */
  tables: string[]
}

const timeoutMs = 10_000
const uuid = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}/

/** Reads a host whose daemon runs. */
export async function readTraces(host: DevHost): Promise<HostTraces> {
  const processes = host.processes()
  const withRole = (role: string) => processes.filter(found => found.role === role)
  const [daemon] = withRole('daemon')
  const folders = namesIn(join(host.dataDir, 'guests')).filter(name => uuid.test(name))
  const folderOf = (uid: string) => join(host.dataDir, 'guests', uid)
  const inside = ['netns', 'exec', host.namespace, 'nft', 'list', 'tables']
  const { stdout } = await runCommand('ip', inside, { timeoutMs })
  return {
    host: host.name,
    guests: withRole('guest')
      .map(({ guest }) => guest?.uid ?? '')
      .sort(),
    daemons: withRole('daemon').length,
    guardians: withRole('guardian').length,
    etcds: withRole('etcd').length,
    others: withRole('other').map(({ command }) => command),
    folders: folders.sort(),
    sockets: namesIn(join(host.runDir, 'guests')).sort(),
    guarded: namesIn(join(host.dataDir, 'guardian/processes'))
      .flatMap(name => uuid.exec(name)?.[0] ?? [])
      .sort(),
    imageUses: namesIn(join(host.dataDir, 'images'))
      .map(name => join(host.dataDir, 'images', name, 'disk.raw'))
      .filter(path => existsSync(path))
      .map(path => statSync(path).nlink - 1),
    ports: daemon === undefined ? [] : listeningPorts(daemon.pid),
    forwards: folders.flatMap(uid => forwardsOf(folderOf(uid))).sort((a, b) => a - b),
    users: folders.flatMap(uid => userOf(join(folderOf(uid), 'guest'))),
    tables: stdout.split('\n').filter(line => line !== ''),
  }
}

function namesIn(path: string): string[] {
  return existsSync(path) ? readdirSync(path) : []
}

/** A folder may go while it is looked at. */
function userOf(path: string): number[] {
  const stats = statSync(path, { throwIfNoEntry: false })
  return stats === undefined ? [] : [stats.uid]
}

function forwardsOf(folder: string): number[] {
  try {
    const record = JSON.parse(readFileSync(join(folder, 'guest.json'), 'utf8'))
    return record.forwards.map(({ hostPort }: { hostPort: number }) => hostPort)
  } catch {
    return []
  }
}

/** From the namespace of a process (proc(5), net/tcp): local address in hex, and state 0A. */
function listeningPorts(pid: number): number[] {
  const { first, last } = defaultPortRange
  const lines = readFileSync(`/proc/${pid}/net/tcp`, 'utf8').split('\n')
  return lines
    .map(line => /^\s*\d+: [0-9A-F]+:([0-9A-F]{4}) \S+ 0A /.exec(line)?.[1])
    .filter(port => port !== undefined)
    .map(port => Number.parseInt(port, 16))
    .filter(port => port >= first && port <= last)
    .sort((a, b) => a - b)
}

/** Uids of all placements, read out of etcd by its own tool. */
export async function readPlacements({ address, dataDir }: DevHost): Promise<string[]> {
  const prefix = 'm/fleet/placements/'
  const fleet = join(dataDir, 'fleet')
  const { stdout } = await runCommand(
    'etcdctl',
    [
      ...['--endpoints', `https://${address}:7482`, '--cacert', join(fleet, 'etcd-ca.pem')],
      ...['--cert', join(fleet, 'etcd.pem'), '--key', join(fleet, 'etcd.pem')],
      ...['get', '--prefix', prefix, '--keys-only'],
    ],
    { timeoutMs, environment: { ETCDCTL_API: '3' } },
  )
  const keys = stdout.split('\n').filter(line => line.startsWith(prefix))
  return keys.map(key => key.slice(prefix.length)).sort()
}

/**
 * What is not as it has to be, in sentences; none when every promised machine runs exactly once,
 * and nothing is left of any other.
 */
export function complaintsOf(
  all: readonly HostTraces[],
  promised: readonly string[],
  voters: number,
): string[] {
  const found: string[] = []
  const runs = all.flatMap(({ guests }) => guests)
  for (const uid of promised) {
    const times = runs.filter(one => one === uid).length
    if (times !== 1) found.push(`${uid} runs ${times} times`)
  }
  const etcds = all.reduce((sum, { etcds }) => sum + etcds, 0)
  if (etcds !== voters) found.push(`${etcds} etcd processes run, not ${voters}`)
  for (const one of all) {
    const say = (what: string, is: unknown, shouldBe: unknown) => {
      if (String(is) !== String(shouldBe))
        found.push(`${one.host}: ${what}: ${is}, not ${shouldBe}`)
    }
    const here = one.guests.filter(uid => promised.includes(uid))
    say('guests', one.guests, here)
    say('daemons', one.daemons, 1)
    say('guardians', one.guardians, 1)
    say('etcd processes', Math.max(1, one.etcds), 1)
    say('other processes', one.others, [])
    say('folders', one.folders, here)
    say('sockets', one.sockets, here.map(uid => uid.replaceAll('-', '').slice(0, 12)).sort())
    say('guarded', one.guarded, here)
    say('uses of the image', one.imageUses, [here.length])
    say('listening ports', one.ports, one.forwards)
    say('forwards', one.forwards.length, here.length)
    say('users', new Set(one.users).size, here.length)
    say('firewall tables', one.tables.length, 1)
  }
  return found
}
