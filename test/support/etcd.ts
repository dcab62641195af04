import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { get } from 'node:https'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { systemClock } from '../../base/clock.ts'
import { defaultLimits } from '../../base/limits.ts'
import { silentLog } from '../../base/log.ts'
import { systemRandom } from '../../base/random.ts'
import {
  createEtcdConnection,
  type EtcdConnection,
  type EtcdTls,
} from '../../cluster/etcd/connection.ts'
import { etcdServerFlags } from '../../cluster/etcd/server-flags.ts'

/** One member of etcd on loopback. */
export interface TestEtcdMember {
  readonly name: string
  readonly clientUrl: string
  readonly peerUrl: string
  readonly dataFolder: string
  /** Kills it at once and waits until it is gone. */
  kill(): Promise<void>
  /** Starts it again on what it has on disk, or for the first time. */
  start(): Promise<void>
  freeze(): void
  thaw(): void
  /** Whether it answers and its cluster has a leader. */
  healthy(): Promise<boolean>
  /** One of its own figures, by its Prometheus name; undefined when it has none such. */
  metric(name: string): Promise<number | undefined>
}

/** etcd with certificates of its own, in a folder of its own. */
export interface TestEtcd {
  readonly members: TestEtcdMember[]
  readonly endpoints: string[]
  readonly folder: string
  /** What a client shows, and by what it knows the members. */
  tls(): EtcdTls
  /** A connection to all members, on the machine's clock; closed by `stop`. */
  connect(): Promise<EtcdConnection>
  /** Makes a member that is not running yet, to be added to this cluster. */
  prepareMember(): Promise<TestEtcdMember>
  /** Ends every process and removes the folder. */
  stop(): Promise<void>
}

const readyMs = 20_000

/** One member, which is enough where nothing is to fail. */
export function startTestEtcd(): Promise<TestEtcd> {
  return startTestEtcdCluster(1)
}

/** So many voters; resolves when all of them answer. Call `stop` in afterAll or afterEach. */
export async function startTestEtcdCluster(size: number): Promise<TestEtcd> {
  const folder = mkdtempSync(join(tmpdir(), 'macfleet-etcd-'))
  const files = makeCertificates(folder)
  const members: TestEtcdMember[] = []
  const started: Set<ChildProcess> = new Set()
  const connections: EtcdConnection[] = []
  const tls = (): EtcdTls => ({
    certificateAuthority: readFileSync(files.authority, 'utf8'),
    certificate: readFileSync(files.certificate, 'utf8'),
    key: readFileSync(files.key, 'utf8'),
  })
  const cluster = (): string => members.map(({ name, peerUrl }) => `${name}=${peerUrl}`).join(',')
  const prepare = async (state: 'new' | 'existing'): Promise<TestEtcdMember> => {
    const name = `m${members.length}`
    const member = await createMember({ name, folder, files, tls, started, cluster, state })
    members.push(member)
    return member
  }
  const stop = async (): Promise<void> => {
    for (const connection of connections) connection.close()
    for (const child of started) child.kill('SIGKILL')
    await Promise.all([...started].map(child => gone(child)))
    rmSync(folder, { recursive: true, force: true })
  }
  try {
    for (let index = 0; index < size; index++) await prepare('new')
    await Promise.all(members.map(member => member.start()))
  } catch (error) {
    await stop()
    throw error
  }
  const endpoints = members.map(({ clientUrl }) => clientUrl)
  return {
    members,
    endpoints,
    folder,
    tls,
    async connect() {
      const components = {
        clock: systemClock,
        random: systemRandom,
        log: silentLog,
        limits: defaultLimits,
      }
      const connection = await createEtcdConnection({ endpoints, tls }, components)
      connections.push(connection)
      return connection
    },
    prepareMember: () => prepare('existing'),
    stop,
  }
}

interface CertificateFiles {
  authority: string
  certificate: string
  key: string
}

/** A CA, and one certificate for members and clients alike. */
function makeCertificates(folder: string): CertificateFiles {
  const path = (name: string): string => join(folder, name)
  const openssl = (...args: string[]): void => {
    execFileSync('openssl', args, { stdio: 'ignore' })
  }
  const fresh = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes']
  const authority = path('ca.pem')
  const authorityKey = path('ca-key.pem')
  openssl(
    'req',
    '-x509',
    ...fresh,
    '-keyout',
    authorityKey,
    '-out',
    authority,
    '-days',
    '2',
    '-subj',
    '/CN=test etcd CA',
  )
  const key = path('key.pem')
  const certificate = path('certificate.pem')
  const request = path('request.pem')
  openssl('req', ...fresh, '-keyout', key, '-out', request, '-subj', '/CN=test')
  const extensions = path('extensions')
  writeFileSync(extensions, 'subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n')
  openssl(
    'x509',
    '-req',
    '-in',
    request,
    '-CA',
    authority,
    '-CAkey',
    authorityKey,
    '-days',
    '2',
    '-CAcreateserial',
    '-extfile',
    extensions,
    '-out',
    certificate,
  )
  return { authority, certificate, key }
}

interface MemberInit {
  name: string
  folder: string
  files: CertificateFiles
  tls: () => EtcdTls
  started: Set<ChildProcess>
  cluster: () => string
  state: 'new' | 'existing'
}

async function createMember(init: MemberInit): Promise<TestEtcdMember> {
  const { name, folder, files } = init
  const [clientPort, peerPort] = await freePorts(2)
  const clientUrl = `https://127.0.0.1:${clientPort}`
  const peerUrl = `https://127.0.0.1:${peerPort}`
  const dataFolder = join(folder, name)
  let child: ChildProcess | undefined
  const args = (): string[] => [
    ...etcdServerFlags,
    ...['--name', name, '--data-dir', dataFolder],
    ...['--listen-client-urls', clientUrl, '--advertise-client-urls', clientUrl],
    ...['--listen-peer-urls', peerUrl, '--initial-advertise-peer-urls', peerUrl],
    ...['--initial-cluster', init.cluster(), '--initial-cluster-state', init.state],
    ...['--initial-cluster-token', folder],
    ...['--client-cert-auth', '--trusted-ca-file', files.authority],
    ...['--cert-file', files.certificate, '--key-file', files.key],
    ...['--peer-client-cert-auth', '--peer-trusted-ca-file', files.authority],
    ...['--peer-cert-file', files.certificate, '--peer-key-file', files.key],
  ]
  const member: TestEtcdMember = {
    name,
    clientUrl,
    peerUrl,
    dataFolder,
    async start() {
      let stderr = ''
      const running = spawn('setpriv', ['--pdeathsig', 'KILL', 'etcd', ...args()], {
        stdio: ['ignore', 'ignore', 'pipe'],
      })
      running.stderr.on('data', chunk => {
        stderr = `${stderr}${chunk}`.slice(-4_000)
      })
      init.started.add(running)
      child = running
      const untilMs = performance.now() + readyMs
      while (!(await member.healthy())) {
        if (running.exitCode !== null) throw new Error(`etcd ended: ${stderr}`)
        if (performance.now() > untilMs) throw new Error(`etcd does not get ready: ${stderr}`)
        await delay(30)
      }
    },
    async kill() {
      child?.kill('SIGKILL')
      if (child !== undefined) await gone(child)
    },
    freeze: () => child?.kill('SIGSTOP'),
    thaw: () => child?.kill('SIGCONT'),
    healthy: async () => (await ask(`${clientUrl}/health`, init.tls())) !== undefined,
    async metric(name) {
      const text = await ask(`${clientUrl}/metrics`, init.tls())
      const value = text?.split('\n').find(line => line.startsWith(`${name} `))
      return value === undefined ? undefined : Number(value.slice(name.length))
    },
  }
  return member
}

async function gone(child: ChildProcess): Promise<void> {
  if (child.exitCode === null && child.signalCode === null) await once(child, 'exit')
}

/** What a member answers over HTTP; undefined unless it is well. */
function ask(url: string, { certificateAuthority, certificate, key }: EtcdTls) {
  return new Promise<string | undefined>(resolve => {
    const material = { ca: certificateAuthority, cert: certificate, key }
    const request = get(url, { ...material, agent: false, timeout: 1_000 }, response => {
      let text = ''
      response.setEncoding('utf8')
      response.on('data', chunk => {
        text += chunk
      })
      response.on('end', () => resolve(response.statusCode === 200 ? text : undefined))
    })
    request.on('timeout', () => request.destroy())
    request.on('error', () => resolve(undefined))
  })
}

/** Ports that were free a moment ago. */
async function freePorts(count: number): Promise<number[]> {
  const servers = Array.from({ length: count }, () => createServer().listen(0, '127.0.0.1'))
  const ports = await Promise.all(
    servers.map(async server => {
      await once(server, 'listening')
      const address = server.address()
      if (address === null || typeof address === 'string') throw new Error('no port')
      return address.port
    }),
  )
  for (const server of servers) server.close()
  return ports
}
