import { generateKeyPairSync } from 'node:crypto'
import { mkdirSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { onTestFinished } from 'vitest'
import { clientUrlOf, peerUrlOf } from '../../agent/etcd/etcd-command.ts'
import {
  type EtcdFolder,
  type MemberIdentity,
  openEtcdFolder,
} from '../../agent/etcd/etcd-folder.ts'
import { etcdProcessName } from '../../agent/etcd/etcd-name.ts'
import { createEtcdProcess } from '../../agent/etcd/etcd-process.ts'
import { startEtcdSupervisor } from '../../agent/etcd/etcd-supervisor.ts'
import { startFirstVoter } from '../../agent/etcd/first-voter.ts'
import type { Guardian } from '../../agent/guardian/client.ts'
import { sleep, systemClock } from '../../base/clock.ts'
import { defaultLimits } from '../../base/limits.ts'
import { silentLog } from '../../base/log.ts'
import { type ProcessIdentity, signalProcess } from '../../base/process-identity.ts'
import { randomUuid, systemRandom } from '../../base/random.ts'
import { createEtcdAdmin, type EtcdAdmin } from '../../cluster/etcd/admin.ts'
import { createEtcdConnection, type EtcdConnection } from '../../cluster/etcd/connection.ts'
import { type EtcdPlannerInit, startEtcdPlanner } from '../../cluster/etcd/planner.ts'
import {
  type AuthorityPair,
  createAuthorityPair,
  issueCertificate,
  privateKeyText,
} from '../../cluster/membership/authority.ts'
import { connectTo, endProcess, startGuardian, type TestGuardian } from './guardian.ts'
import { temporaryFolder } from './temporary-folder.ts'

/** What of a host's daemon has to do with etcd, with a guardian of its own, on loopback. */
export interface EtcdHost {
  name: string
  peerUrl: string
  clientUrl: string
  folder: EtcdFolder
  /** How often its daemon has read the member list since it started. */
  looks(): number
  /** Begins as a daemon that starts does. */
  startDaemon(): Promise<void>
  /** Lets go as a daemon that ends does. */
  stopDaemon(): Promise<void>
  tls: { ca: string; certificate: string; key: string }
  /** A connection of its own, closed when the test ends. */
  connect(endpoints: readonly string[]): Promise<EtcdConnection>
  /** Makes it the one member of a new cluster, without what it had. */
  begin(): Promise<MemberIdentity>
  /** The etcd that runs, if it does. */
  running(): Promise<ProcessIdentity | undefined>
  killEtcd(): Promise<void>
  /** Kills everything of the host, as pulling its plug would. */
  powerOff(): Promise<void>
  /** Starts the guardian, and then the daemon. */
  powerOn(): Promise<void>
}

/** Hosts that share an authority. */
export interface EtcdHosts {
  hosts: EtcdHost[]
  admin: EtcdAdmin
  connection: EtcdConnection
  /** Plans as the host that leads does, until the test ends or it is stopped. */
  plan(init?: Partial<EtcdPlannerInit>): { stop(): Promise<void> }
}

const components = {
  clock: systemClock,
  random: systemRandom,
  limits: defaultLimits,
  log: silentLog,
}

/** Makes hosts; none runs yet. Everything goes when the test ends. */
export async function makeEtcdHosts(
  count: number,
  quotaBytes = 256 * 1024 * 1024,
): Promise<EtcdHosts> {
  const fleetId = randomUuid(systemRandom)
  const pair = createAuthorityPair({ fleetId, generation: 1 }, components)
  const endpoints: string[] = []
  const hosts: EtcdHost[] = []
  for (let index = 0; index < count; index++) {
    const made = await makeHost({ index, fleetId, pair, endpoints, quotaBytes })
    endpoints.push(made.clientUrl)
    hosts.push(made)
  }
  const tlsFiles = writeCertificate(temporaryFolder(), { fleetId, pair, name: 'client', index: 0 })
  const connection = await connectEtcd(endpoints, tlsFiles.texts)
  const admin = createEtcdAdmin(connection)
  return {
    hosts,
    admin,
    connection,
    plan(init = {}) {
      const planner = startEtcdPlanner(
        {
          votersMost: 3,
          timing: { voterDeadMs: 1500, learnerDeadMs: 10_000, evenMostMs: 20_000 },
          intervalMs: 200,
          shunMs: 60_000,
          statusTimeoutMs: 3000,
          hosts: () =>
            hosts.map(({ name, peerUrl }) => ({ name, peerUrl, alive: true, cordoned: false })),
          ...init,
        },
        { admin, clock: systemClock, log: silentLog },
      )
      onTestFinished(() => planner.stop())
      return planner
    },
  }
}

async function connectEtcd(endpoints: readonly string[], texts: Texts): Promise<EtcdConnection> {
  const connection = await createEtcdConnection({ endpoints, tls: () => texts }, components)
  onTestFinished(() => connection.close())
  return connection
}

interface HostInit {
  index: number
  fleetId: string
  pair: AuthorityPair
  /** Of all hosts. */
  endpoints: readonly string[]
  /** From which on etcd takes no writes. */
  quotaBytes: number
}

async function makeHost(made: HostInit): Promise<EtcdHost> {
  const { index, fleetId, pair, endpoints, quotaBytes } = made
  const name = `h${index}`
  const root = temporaryFolder()
  const [etcdClientPort = 0, etcdPeerPort = 0] = await freePorts(2)
  const address = { host: `127.0.0.${index + 2}`, etcdClientPort, etcdPeerPort }
  const { texts, ...tls } = writeCertificate(root, { fleetId, pair, name, index })
  const folder = openEtcdFolder(join(root, 'etcd'), systemClock)
  const logBytes = 1024 * 1024
  const init = { program: 'etcd', name, address, tls, folder, quotaBytes, logBytes }
  const urls = { peerUrl: peerUrlOf(address), clientUrl: clientUrlOf(address) }
  let guardian: TestGuardian | undefined
  /** Only looks: a guardian takes few clients. */
  let looker: Guardian | undefined
  let stop = async (): Promise<void> => {}
  let looks = 0

  const client = (): Guardian => {
    guardian ??= startGuardian(root)
    return connectTo(guardian)
  }
  const partsOf = (connection: EtcdConnection, guardian: Guardian) => ({
    ...components,
    guardian,
    folder,
    admin: createEtcdAdmin(connection),
    process: createEtcdProcess(init, { ...components, guardian }),
  })
  const running = async (): Promise<ProcessIdentity | undefined> => {
    looker ??= client()
    const found = (await looker.list()).find(one => one.name === etcdProcessName)
    return found?.ended === undefined ? found?.identity : undefined
  }
  const host: EtcdHost = {
    name,
    ...urls,
    folder,
    tls,
    connect: endpoints => connectEtcd(endpoints, texts),
    looks: () => looks,
    async startDaemon() {
      looks = 0
      const onMembers = () => looks++
      const connection = await host.connect(endpoints)
      const ownClient = client()
      const supervisor = startEtcdSupervisor(
        { name, ...urls, onMembers, intervalMs: 200, restartSlotMs: 2000 },
        partsOf(connection, ownClient),
      )
      stop = async () => {
        ownClient.close()
        connection.close()
        await supervisor.stop()
      }
      onTestFinished(stop)
    },
    stopDaemon: () => stop(),
    async begin() {
      const parts = partsOf(await host.connect([host.clientUrl]), client())
      return startFirstVoter({ name, ...urls, timeoutMs: 20_000 }, parts)
    },
    running,
    async killEtcd() {
      const identity = await running()
      if (identity !== undefined) signalProcess(identity, 'SIGKILL')
    },
    async powerOff() {
      await stop()
      if (guardian !== undefined) await endProcess(guardian.process)
      guardian = undefined
      looker = undefined
    },
    powerOn: () => host.startDaemon(),
  }
  return host
}

interface Texts {
  certificateAuthority: string
  certificate: string
  key: string
}

function writeCertificate(
  root: string,
  {
    fleetId,
    pair,
    name,
    index,
  }: { fleetId: string; pair: AuthorityPair; name: string; index: number },
) {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const certificate = issueCertificate(
    'etcd',
    pair.etcd,
    {
      identity: { fleetId, name, peerId: `peer-${name}`, hostId: randomUuid(systemRandom) },
      address: `127.0.0.${index + 2}`,
      publicKey,
    },
    components,
  )
  const folder = join(root, 'tls')
  mkdirSync(folder, { recursive: true, mode: 0o700 })
  const texts = {
    certificateAuthority: pair.etcd.certificate,
    certificate,
    key: privateKeyText(privateKey),
  }
  const files = {
    ca: join(folder, 'ca.pem'),
    certificate: join(folder, 'host.pem'),
    key: join(folder, 'host.key'),
  }
  writeFileSync(files.ca, texts.certificateAuthority)
  writeFileSync(files.certificate, texts.certificate)
  writeFileSync(files.key, texts.key, { mode: 0o600 })
  return { ...files, texts }
}

/** Ports that nobody listens on, on any loopback address. */
async function freePorts(count: number): Promise<number[]> {
  const servers = Array.from({ length: count }, () => createServer())
  const ports = await Promise.all(
    servers.map(
      server =>
        new Promise<number>(resolve => {
          server.listen(0, '0.0.0.0', () => {
            const address = server.address()
            resolve(typeof address === 'object' && address !== null ? address.port : 0)
          })
        }),
    ),
  )
  await Promise.all(servers.map(server => new Promise(resolve => server.close(resolve))))
  return ports
}

/** Waits for a condition; a failing look counts as no. */
export async function within(
  seconds: number,
  what: string,
  condition: () => Promise<boolean> | boolean,
): Promise<void> {
  const deadlineMs = systemClock.monotonicMs() + seconds * 1000
  let last: unknown
  while (systemClock.monotonicMs() < deadlineMs) {
    try {
      if (await condition()) return
      last = undefined
    } catch (error) {
      last = error
    }
    await sleep(systemClock, 50)
  }
  throw new Error(`not within ${seconds} s: ${what}`, { cause: last })
}
