import { join } from 'node:path'
import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest'
import { type HeldLease, startHostLease } from '../../agent/host-lease.ts'
import { openBootClock } from '../../base/boot-clock.ts'
import { sleep, systemClock } from '../../base/clock.ts'
import { defaultLimits } from '../../base/limits.ts'
import { silentLog } from '../../base/log.ts'
import { isAlive, type ProcessIdentity } from '../../base/process-identity.ts'
import { systemRandom } from '../../base/random.ts'
import { hostLeaseKey } from '../../cluster/fleet/keys.ts'
import { checkTiming, defaultTiming, type Timing } from '../../cluster/fleet/timing.ts'
import { openEtcdStore } from '../../cluster/store/etcd.ts'
import type { Store } from '../../cluster/store/store.ts'
import { startTestEtcd, type TestEtcd } from '../support/etcd.ts'
import {
  connectTo,
  script,
  startGuardian,
  type TestClient,
  type TestGuardian,
  until,
} from '../support/guardian.ts'

/** The spans of a fleet in service, shorter; etcd gives no lease of less than 2 s. */
const timing: Timing = {
  ...defaultTiming,
  hostLeaseTtlMs: 2_000,
  renewalPeriodMs: 300,
  renewalTimeoutMs: 250,
  electionMostMs: 900,
  fenceMs: 2_300,
  fenceCheckMs: 40,
  killMs: 250,
  graceMs: 700,
  daemonSilenceMs: 1_000,
  heartbeatMs: 200,
}
/** When the others may act, after the last renewal was sent. */
const replacedMs = timing.hostLeaseTtlMs + timing.graceMs
const bootClock = openBootClock()
let etcd: TestEtcd
let store: Store
let hosts = 0

beforeAll(async () => {
  checkTiming(timing)
  etcd = await startTestEtcd()
  const log = silentLog
  const components = { clock: systemClock, random: systemRandom, log, limits: defaultLimits }
  store = openEtcdStore({ connection: await etcd.connect(), revisionBase: 0 }, components)
})

afterAll(async () => {
  await store?.close()
  await etcd?.stop()
})

interface TestHost {
  name: string
  guardian: TestGuardian
  /** A client beside the daemon's, for questions. */
  client: TestClient
  /** The daemon's part; ended with the test. */
  startDaemon(change?: { hostId?: string; bootId?: string }): TestDaemon
}

interface TestDaemon {
  held: HeldLease
  client: TestClient
  /** Ends it as kill -9 does: nothing is said to anybody. */
  kill(): void
}

/** A host with a guardian of its own, and a name that no other test has. */
function startHost(name = `host-${++hosts}`): TestHost {
  const guardian = startGuardian()
  const startDaemon: TestHost['startDaemon'] = (change = {}) => {
    const client = connectTo(guardian)
    const init = {
      ...{ host: name, hostId: `id of ${name}`, bootId: 'boot', ...change },
      dataFolder: guardian.dataFolder,
      timing,
      endpoints: () => etcd.endpoints,
      tls: tlsFiles(),
      etcdKey: (key: string) => `m/${key}`,
    }
    const components = { store, clock: systemClock, bootClock, log: silentLog, guardian: client }
    const held = startHostLease(init, components)
    const kill = (): void => {
      held.stop()
      client.close()
    }
    onTestFinished(kill)
    return { held, client, kill }
  }
  return { name, guardian, client: connectTo(guardian), startDaemon }
}

function tlsFiles() {
  const at = (file: string) => join(etcd.folder, file)
  return {
    authorityPath: at('ca.pem'),
    certificatePath: at('certificate.pem'),
    keyPath: at('key.pem'),
  }
}

async function leaseOf({ held }: TestDaemon): Promise<number> {
  await until('the host has a lease', () => held.leaseRevision() !== undefined)
  return held.leaseRevision() ?? 0
}

/** Starts a guest that only sleeps. */
async function startGuest(
  host: TestHost,
  { held }: TestDaemon,
  name: string,
  fenced: boolean,
): Promise<ProcessIdentity> {
  const claim = held.claim(held.leaseRevision() ?? 0, fenced)
  const sleeper = script(host.guardian, name, 'exec sleep 1000')
  return held.guardian.start({ ...sleeper, claim })
}

/** Looks at a process from outside until it has ended. @returns boot time of its end */
async function endOf(identity: ProcessIdentity): Promise<number> {
  await until('the guest is dead', () => !isAlive(identity))
  return bootClock.nowMs()
}

/** A guest that may be replaced when its host is lost, and one that may not. */
async function pair(host: TestHost, daemon: TestDaemon) {
  await leaseOf(daemon)
  const fenced = await startGuest(host, daemon, 'fenced', true)
  const spared = await startGuest(host, daemon, 'spared', false)
  return { fenced, spared }
}

async function keyOf(name: string) {
  return (await store.get(hostLeaseKey(name))).entry
}

test('renews over mutual TLS, and starts nothing claimed under another lease', async () => {
  const host = startHost()
  const sleeper = script(host.guardian, 'early', 'exec sleep 1000')
  const early = { ...sleeper, claim: { leaseRevision: 5, fenced: false } }
  await expect(host.client.start(early)).rejects.toMatchObject({ code: 'guardianFenced' })
  expect((await host.client.heartbeat()).lease).toBeUndefined()
  await host.client.start({ ...sleeper, name: 'unclaimed' })

  const daemon = host.startDaemon()
  const revision = await leaseOf(daemon)
  const first = (await host.client.heartbeat()).lease?.renewedMs ?? 0
  await until('it was renewed for longer than it lives', async () => {
    const { lease } = await host.client.heartbeat()
    return (lease?.renewedMs ?? 0) > first + timing.hostLeaseTtlMs + 500
  })
  expect(await keyOf(host.name)).toMatchObject({
    createRevision: revision,
    value: { hostId: `id of ${host.name}`, bootId: 'boot' },
  })
  const wrong = { leaseRevision: revision + 1, fenced: true }
  await expect(
    host.client.start({ ...sleeper, name: 'wrong', claim: wrong }),
  ).rejects.toMatchObject({ code: 'guardianFenced' })
  await startGuest(host, daemon, 'right', true)
  expect((await host.client.heartbeat()).fenced).toMatchObject([{ name: 'right' }])
  const bare = { ...timing, fenceMs: 60_000 }
  const lease = { leaseId: '1', leaseRevision: 9, key: 'm/a', endpoints: etcd.endpoints }
  await expect(
    host.client.lease({ ...lease, tls: tlsFiles(), timing: bare }),
  ).rejects.toMatchObject({ code: 'guardianRefused' })
})

test('a daemon that is silent ends renewals, and fenced guests with them', async () => {
  const host = startHost()
  const daemon = host.startDaemon()
  const { fenced, spared } = await pair(host, daemon)
  daemon.kill()
  const silentMs = bootClock.nowMs()
  const deadMs = await endOf(fenced)
  const { daemonSilenceMs, heartbeatMs, fenceMs } = timing
  expect(deadMs - silentMs).toBeGreaterThan(daemonSilenceMs + fenceMs - heartbeatMs - 500)
  expect(deadMs - silentMs).toBeLessThan(daemonSilenceMs + replacedMs)
  await until('its end is told', () => host.client.exits.length === 1)
  expect(host.client.exits[0]).toMatchObject({ name: 'fenced', ended: { reason: 'fenced' } })
  expect(isAlive(spared)).toBe(true)
  await until('the lease has ended', async () => (await keyOf(host.name)) === undefined)
})

test('a daemon that is back in time finds its lease, guests and all', async () => {
  const host = startHost()
  const first = host.startDaemon()
  const { fenced } = await pair(host, first)
  const revision = first.held.leaseRevision()
  // Longer than silence is borne, and than a lease lives: it was announced.
  await first.held.announceRestart(4_000)
  first.kill()
  await sleep(systemClock, timing.daemonSilenceMs + timing.hostLeaseTtlMs + 200)
  const second = host.startDaemon()
  expect(await leaseOf(second)).toBe(revision)
  // Shorter, and it was not.
  second.kill()
  await sleep(systemClock, timing.daemonSilenceMs / 2)
  const third = host.startDaemon()
  expect(await leaseOf(third)).toBe(revision)
  expect((await keyOf(host.name))?.createRevision).toBe(revision)
  expect(isAlive(fenced)).toBe(true)
})

test('etcd away for an election ends nobody; for longer, whoever may be replaced', async () => {
  const host = startHost()
  const daemon = host.startDaemon()
  const { fenced, spared } = await pair(host, daemon)
  const revision = await leaseOf(daemon)
  const [member] = etcd.members
  onTestFinished(() => member?.thaw())
  member?.freeze()
  await sleep(systemClock, timing.electionMostMs)
  member?.thaw()
  await until('it is renewed again', async () => {
    const { lease } = await host.client.heartbeat()
    return (lease?.renewedMs ?? 0) > bootClock.nowMs() - timing.renewalPeriodMs
  })
  expect(isAlive(fenced)).toBe(true)
  expect(daemon.held.leaseRevision()).toBe(revision)

  member?.freeze()
  const cutMs = bootClock.nowMs()
  const deadMs = await endOf(fenced)
  expect(deadMs - cutMs).toBeGreaterThan(timing.fenceMs - timing.renewalPeriodMs - 400)
  expect(deadMs - cutMs).toBeLessThan(replacedMs)
  const late = startGuest(host, daemon, 'late', false)
  await expect(late).rejects.toMatchObject({ code: 'guardianFenced' })
  member?.thaw()
  await until('there is a new lease', () => (daemon.held.leaseRevision() ?? 0) > revision)
  expect(isAlive(spared)).toBe(true)
  // What survived is claimed anew, and may be fenced by then.
  const claim = { leaseRevision: daemon.held.leaseRevision() ?? 0, fenced: true }
  await daemon.held.guardian.claim('spared', claim)
  expect((await host.client.heartbeat()).fenced).toMatchObject([{ name: 'spared' }])
  const old = { leaseRevision: revision, fenced: true }
  await expect(host.client.claim('spared', old)).rejects.toMatchObject({ code: 'guardianFenced' })
})

test('when the guardian is frozen the daemon kills, and the end is known afterwards', async () => {
  const host = startHost()
  const daemon = host.startDaemon()
  const { fenced, spared } = await pair(host, daemon)
  onTestFinished(() => void host.guardian.process.kill('SIGCONT'))
  host.guardian.process.kill('SIGSTOP')
  const frozenMs = bootClock.nowMs()
  const deadMs = await endOf(fenced)
  expect(deadMs - frozenMs).toBeLessThan(replacedMs)
  expect(isAlive(spared)).toBe(true)
  // It may have renewed once more than it could say, and had a later deadline then.
  await until('that is over too', () => bootClock.nowMs() > frozenMs + timing.fenceMs)
  host.guardian.process.kill('SIGCONT')
  await until('its end is told', () => host.client.exits.length === 1)
  expect(host.client.exits[0]).toMatchObject({ name: 'fenced', ended: { reason: 'fenced' } })
  const before = (await keyOf(host.name))?.createRevision ?? 0
  await until('there is a lease', () => (daemon.held.leaseRevision() ?? 0) >= before)
})

test('a frozen daemon kills nobody when it thaws', async () => {
  const host = startHost()
  const daemon = host.startDaemon()
  const { fenced } = await pair(host, daemon)
  await daemon.held.announceRestart(10_000)
  // Its loop stands still for longer than the fence, while the guardian renews.
  const untilMs = bootClock.nowMs() + timing.fenceMs + 500
  while (bootClock.nowMs() < untilMs);
  await until('it has heard the guardian', async () => {
    await sleep(systemClock, 10 * timing.fenceCheckMs)
    return true
  })
  expect(isAlive(fenced)).toBe(true)
})

test('a guardian that is new is given the lease, which goes on', async () => {
  const host = startHost()
  const daemon = host.startDaemon()
  const { fenced } = await pair(host, daemon)
  const revision = await leaseOf(daemon)
  const lost = new Promise<void>(resolve => host.client.onLost(resolve))
  host.guardian.process.kill('SIGKILL')
  await Promise.all([endOf(fenced), lost])
  startGuardian(host.guardian.folder)
  await until('it renews the lease', async () => {
    const { lease } = await host.client.heartbeat()
    return lease?.leaseRevision === revision && lease.renewedMs !== undefined
  })
  expect((await keyOf(host.name))?.createRevision).toBe(revision)
})

test('two hosts of one name, and one that was started anew', async () => {
  const first = startHost()
  const firstDaemon = first.startDaemon()
  const revision = await leaseOf(firstDaemon)
  const second = startHost(first.name)
  const other = second.startDaemon({ hostId: 'another' })
  await until('the second says why', () => other.held.problem()?.includes(first.name) === true)
  expect(other.held.leaseRevision()).toBeUndefined()
  other.kill()
  // The machine was started anew: nothing that was claimed before counts under the new lease.
  firstDaemon.kill()
  const again = second.startDaemon({ bootId: 'the next boot' })
  expect(await leaseOf(again)).toBeGreaterThan(revision)
})

test('a lease that etcd ends without cause is followed by another in time', async () => {
  const host = startHost()
  const daemon = host.startDaemon()
  const { fenced } = await pair(host, daemon)
  const before = await keyOf(host.name)
  // As a leader of etcd does that was frozen and goes on.
  await store.revokeLease(before?.lease ?? '')
  await until('there is a new lease', async () => {
    return (daemon.held.leaseRevision() ?? 0) > (before?.createRevision ?? 0)
  })
  await sleep(systemClock, timing.fenceMs + 500)
  expect(isAlive(fenced)).toBe(true)
  const { lease, fenced: guests } = await host.client.heartbeat()
  expect(guests).toMatchObject([{ name: 'fenced', deadlineMs: lease?.deadlineMs }])
  // What is about to be claimed so that it may be replaced is fenced ahead of that.
  const claim = { leaseRevision: lease?.leaseRevision ?? 0, fenced: true }
  await daemon.held.guardian.claim('spared', claim, true)
  expect((await host.client.heartbeat()).fenced).toHaveLength(2)
  await daemon.held.guardian.claim('spared', { ...claim, fenced: false })
  expect((await host.client.heartbeat()).fenced).toHaveLength(1)
})
