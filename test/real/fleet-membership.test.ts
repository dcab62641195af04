import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { checkout } from '../../agent/dev/local-host.ts'
import { connectGuardian } from '../../agent/guardian/client.ts'
import { systemClock } from '../../base/clock.ts'
import { runCommand } from '../../base/command.ts'
import { defaultLimits } from '../../base/limits.ts'
import { silentLog } from '../../base/log.ts'
import { decodeToken, encodeToken } from '../../cluster/membership/token-text.ts'
import type { FleetStatus } from '../../interface/api/fleet-operations.ts'
import type { Host } from '../../resources/host.ts'
import type { VirtualMachine } from '../../resources/virtual-machine.ts'
import { createTestRack, type TestRack } from '../cluster/rack.ts'
import { isReady, until } from '../support/host.ts'

let rack: TestRack
beforeAll(async () => {
  rack = await createTestRack({ hosts: 2 })
  const taint = { key: 'dedicated', value: 'tests', effect: 'NoSchedule' }
  await rack.addHost(1, { labels: { only: 'mac-3' } })
  await rack.addHost(1, { hostName: 'mac-1', taints: [taint] })
  await rack.start()
})
afterAll(() => rack?.remove())

const micro = join(checkout, '.macfleet/guests/micro.raw')
const isRunning = ({ status }: VirtualMachine) => status?.phase === 'Running'
const status = (host: string) => rack.read<FleetStatus>(host, '/fleet')
const names = async (host: string) => (await status(host)).members.map(({ name }) => name)
const hostsPath = '/apis/macfleet.dev/v1/hosts'
const hostNames = async (host: string) => {
  const { items } = await rack.read<{ items: Host[] }>(host, hostsPath)
  return items.map(({ metadata }) => metadata.name).sort()
}
const only = ['--host-selector', 'only=mac-3']
const small = ['--cpu', '100m', '--memory', '128Mi']
/** Generations of the authorities that hosts trust, from their disks. */
const generations = () =>
  ['mac-1', 'mac-2', 'mac-3'].map(name => {
    const file = join(rack.host(name).dataDir, 'fleet/fleet.json')
    const { authorities } = JSON.parse(readFileSync(file, 'utf8'))
    return authorities.trusted.map(({ generation }: { generation: number }) => generation).join()
  })
const guestPid = (host: string) =>
  rack
    .host(host)
    .processes('guest')
    .map(({ pid }) => pid)
/** What a command that has to fail says. */
const refused = async (host: string, ...args: string[]): Promise<string> => {
  const { code, stderr, stdout } = await rack.macfleet(host, ...args)
  expect(code, `${args.join(' ')}: ${stdout}${stderr}`).not.toBe(0)
  return stderr
}
const token = async (host: string, ...args: string[]) =>
  (await rack.must(host, 'cluster', 'token', 'create', ...args)).trim()
const untilMembers = (through: string, wanted: readonly string[]) =>
  until(
    `${wanted} are the members`,
    async () => {
      const found = (await status(through)).members.filter(({ isAlive }) => isAlive)
      return found.map(({ name }) => name).join() === wanted.join() ? true : undefined
    },
    60_000,
  )

/** Guests that end with the host's lease, by the guardian's word. */
async function fenced(host: string): Promise<{ guests: string[]; leaseRevision?: number }> {
  const guardian = connectGuardian(
    {
      socketPath: join(rack.host(host).runDir, 'guardian.sock'),
      timeoutMs: 5_000,
      reconnect: { firstMs: 50, mostMs: 500 },
      limits: defaultLimits,
    },
    { clock: systemClock, log: silentLog },
  )
  try {
    const { lease, fenced: guests } = await guardian.heartbeat()
    return {
      guests: guests.map(({ name }) => name),
      ...(lease?.leaseRevision !== undefined && { leaseRevision: lease.leaseRevision }),
    }
  } finally {
    guardian.close()
  }
}

describe('membership on real daemons', { concurrent: false }, () => {
  test('a single host becomes a fleet, and its guest runs on', async () => {
    await rack.must('mac-1', 'image', 'import', micro, '--name', 'micro')
    await rack.must('mac-1', 'run', 'micro', ...small, '--name', 'old', '--on-host-loss', 'Replace')
    await rack.untilMachine('mac-1', 'old', isReady)
    const before = guestPid('mac-1')
    expect(before).toHaveLength(1)
    await rack.must('mac-1', 'cluster', 'init')
    const { metadata } = await rack.untilMachine('mac-1', 'old', isRunning)
    await until('it is fenced', async () => {
      const { guests, leaseRevision } = await fenced('mac-1')
      return guests.includes(metadata.uid ?? '') && leaseRevision !== undefined ? true : undefined
    })
    expect(guestPid('mac-1')).toEqual(before)
    expect(await rack.must('mac-1', 'exec', 'old', '--', 'echo', 'still', 'here')).toContain(
      'still here',
    )
    expect(await refused('mac-1', 'cluster', 'init')).toContain('a host of a fleet already')
  })

  test('who has a token for many waits for approval, and is told nothing before', async () => {
    const many = await token('mac-1', '--uses', '2', '--rack', 'far')
    const joining = rack.macfleet('mac-2', 'cluster', 'join', many)
    await until('it waits', async () => {
      const pending = (await status('mac-1')).members.find(({ name }) => name === 'mac-2')
      return pending?.state === 'Pending' ? true : undefined
    })
    const told = await until('it says so', async () => {
      const { transition, mode } = await status('mac-2')
      return transition?.message.includes('host approve mac-2') ? mode : undefined
    })
    expect(told).toBe('single')
    const folder = join(rack.host('mac-2').dataDir, 'fleet.joining')
    expect(existsSync(join(folder, 'fleet.json'))).toBe(false)
    await rack.must('mac-1', 'host', 'approve', 'mac-2')
    expect(await joining).toMatchObject({ code: 0 })
    await untilMembers('mac-2', ['mac-1', 'mac-2'])
    expect(await hostNames('mac-2')).toEqual(['mac-1', 'mac-2'])
  })

  test('tokens that are no good are refused with the reason', async () => {
    const join = (text: string) => refused('mac-3', 'cluster', 'join', text)
    expect(await join('nonsense')).toContain('this is no join token')
    const revoked = await token('mac-1')
    await rack.must('mac-1', 'cluster', 'token', 'revoke', decodeToken(revoked).id)
    expect(await join(revoked)).toContain('was revoked, or was never valid here')
    expect((await status('mac-3')).mode).toBe('single')
    const good = decodeToken(await token('mac-1'))
    const nobody = encodeToken({ ...good, fingerprint: 'A'.repeat(good.fingerprint.length) })
    expect(await join(nobody)).toContain('is not of the fleet that made this join token')
    const sameName = await refused('mac-4', 'cluster', 'join', encodeToken(good))
    expect(sameName).toContain('the fleet has another host with the name mac-1')
    // Found by mDNS alone; and what was refused has not used it up.
    const nowhere = encodeToken({ ...good, addresses: [{ host: '127.0.0.1', peerPort: 1 }] })
    await rack.must('mac-3', 'cluster', 'join', nowhere)
    await untilMembers('mac-3', ['mac-1', 'mac-2', 'mac-3'])
    expect(await refused('mac-4', 'cluster', 'join', nowhere)).toContain('was used as often')
  })

  test('two fleets in one rack do not mix', async () => {
    await rack.must('mac-4', 'cluster', 'init')
    expect((await status('mac-4')).members).toHaveLength(1)
    expect(await names('mac-1')).toEqual(['mac-1', 'mac-2', 'mac-3'])
    const other = await refused('mac-4', 'cluster', 'join', await token('mac-1'))
    expect(other).toContain('a host of a fleet already')
    const alone = await refused('mac-4', 'host', 'remove', 'mac-1')
    expect(alone).toContain('the last host of its fleet')
    expect(await refused('mac-4', 'cluster', 'leave')).toContain(
      'the last host of its fleet that lives',
    )
    const { items } = await rack.read<{ items: Host[] }>('mac-4', hostsPath)
    expect(items.map(({ spec }) => spec.taints?.[0]?.key)).toEqual(['dedicated'])
  })

  test('the authorities are replaced while guests run and etcd goes on', async () => {
    await rack.must('mac-3', 'image', 'import', micro, '--name', 'micro')
    const wish = ['--name', 'pinned', ...only, '--on-host-loss', 'Replace']
    const placed = await rack.must('mac-2', 'run', 'micro', ...small, ...wish, '--dry-run')
    expect(placed).toContain('mac-3')
    await rack.must('mac-2', 'run', 'micro', ...small, ...wish)
    await rack.untilMachine('mac-2', 'pinned', isRunning)
    expect(await rack.must('mac-1', 'explain', 'vm', 'pinned')).toContain('mac-3')
    const voters = ({ members }: FleetStatus) =>
      members.filter(({ voter }) => voter === 'leader' || voter === 'follower')
    await until(
      'three vote',
      async () => (voters(await status('mac-2')).length === 3 ? true : undefined),
      90_000,
    )
    const guests = [guestPid('mac-1'), guestPid('mac-3')]
    const before = generations()
    const old = await token('mac-1')
    await rack.must('mac-2', 'cluster', 'rotate-ca')
    await until(
      'all trust the new ones alone',
      async () =>
        generations().every((now, at) => now === `${Number(before[at]) + 1}`) ? true : undefined,
      90_000,
    )
    await until('the store is there', async () =>
      (await status('mac-3')).store.isAvailable ? true : undefined,
    )
    await rack.must('mac-3', 'get', 'hosts', '-o', 'wide')
    expect([guestPid('mac-1'), guestPid('mac-3')]).toEqual(guests)
    expect(await refused('mac-4', 'cluster', 'join', old)).toContain('is not of the fleet')
  })

  test('a data folder on another machine starts nothing until it is adopted', async () => {
    const host = rack.host('mac-2')
    const machineIdFile = join(host.folder, 'machine-id')
    await host.stop()
    await host.kill('guardian')
    writeFileSync(machineIdFile, `${'c'.repeat(32)}\n`)
    await expect(host.start()).rejects.toThrow('was made on another machine')
    expect(host.processes()).toEqual([])
    await runCommand(
      join(checkout, 'bin/macfleetd'),
      ['--adopt', '--config', join(host.folder, 'macfleetd.yaml')],
      { timeoutMs: 60_000 },
    )
    await host.start()
    await untilMembers('mac-1', ['mac-1', 'mac-2', 'mac-3'])
  })

  test('who has machines may not leave but by force, and takes none along', async () => {
    // The one would end with its lease anyway; this one has to be ended.
    await rack.must('mac-1', 'run', 'micro', ...small, '--name', 'kept', ...only)
    await rack.untilMachine('mac-1', 'kept', isRunning)
    expect(await refused('mac-3', 'cluster', 'leave')).toContain('default/pinned')
    await rack.must('mac-3', 'cluster', 'leave', '--force')
    expect(guestPid('mac-3')).toEqual([])
    expect(rack.host('mac-3').processes('etcd')).toEqual([])
    expect((await status('mac-3')).mode).toBe('single')
    expect(await hostNames('mac-3')).toEqual(['mac-3'])
    // Of the records, not of those that are alive: a host that could not sign off would be in them.
    await until('it is in no record', async () => {
      const left = [await names('mac-1'), await hostNames('mac-1')]
      return left.every(listed => listed.join() === 'mac-1,mac-2') ? true : undefined
    })
    const { status: told } = await rack.untilMachine(
      'mac-1',
      'pinned',
      machine => machine.status?.host === undefined,
    )
    expect(told?.phase).toBe('Pending')
    await rack.must('mac-1', 'delete', 'vm', 'pinned', 'kept')
  })

  test('a fleet restored from a backup takes its host back with its guest running', async () => {
    const guests = guestPid('mac-1')
    expect(guests).toHaveLength(1)
    const backup = join(rack.folder, 'backup')
    const passphrase = join(rack.folder, 'passphrase')
    writeFileSync(passphrase, 'a long one')
    await rack.must('mac-2', 'cluster', 'backup', backup, '--passphrase-file', passphrase)
    await rack.must('mac-3', 'cluster', 'restore', backup, '--passphrase-file', passphrase)
    const restored = await status('mac-3')
    expect(restored.era).toBe(2)
    expect(restored.recoveringSince).toBeDefined()
    expect(restored.members.map(({ name }) => name)).toEqual(['mac-1', 'mac-2', 'mac-3'])
    // The host with the guest first: once the others have gone, its lease is renewed by nobody.
    await rack.must('mac-1', 'cluster', 'join', await token('mac-3'))
    // Its old store has gone with mac-1: its socket may be away just now, and says to try again.
    await until('mac-2 is back', async () => {
      const { code } = await rack.macfleet('mac-2', 'cluster', 'join', await token('mac-3'))
      const told = await status('mac-2').catch(() => undefined)
      return code === 0 || told?.era === 2 ? true : undefined
    })
    await untilMembers('mac-1', ['mac-1', 'mac-2', 'mac-3'])
    await until('it has recovered', async () => {
      const { era, recoveringSince } = await status('mac-2')
      return era === 2 && recoveringSince === undefined ? true : undefined
    })
    const { metadata } = await rack.untilMachine('mac-3', 'old', isRunning)
    await until('it is fenced by the new lease', async () =>
      (await fenced('mac-1')).guests.includes(metadata.uid ?? '') ? true : undefined,
    )
    expect(guestPid('mac-1')).toEqual(guests)
  })

  test('a host that is removed is out at once, and becomes a single one', async () => {
    await rack.must('mac-1', 'host', 'remove', 'mac-2')
    await until(
      'it is a single host',
      async () => {
        const told = await status('mac-2').catch(() => undefined)
        return told?.mode === 'single' ? true : undefined
      },
      90_000,
    )
    expect(await names('mac-1')).toEqual(['mac-1', 'mac-3'])
    expect(await hostNames('mac-1')).toEqual(['mac-1', 'mac-3'])
    expect(rack.host('mac-2').processes('etcd')).toEqual([])
  })
})
