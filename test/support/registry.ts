import { type ChildProcess, execFile, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { promisify } from 'node:util'
import type { RegistryAccess } from '../../images/sources/source.ts'

/** How a registry is to run; by default without TLS and passwords on a free port of loopback. */
export interface TestRegistryInit {
  /** A network namespace (`ip netns`) that is there already. */
  namespace?: string
  /** Where it listens; 127.0.0.1 by default. */
  address?: string
  /** 0, the default: one that is free. */
  port?: number
  /** Only these may read and write (htpasswd). */
  credentials?: { username: string; password: string }
  /** With a certificate for `address` by an authority of its own. */
  tls?: boolean
  /** More of its configuration, as in its manual: `{ auth: { token: ... } }`. */
  configuration?: Record<string, unknown>
}

/** One request that the registry has answered. */
export interface AnsweredRequest {
  method: string
  /** Path and query. */
  uri: string
  status: number
  /** Bytes of the answer's body. */
  sentBytes: number
}

/** Debian's docker-registry in a folder of its own. */
export interface TestRegistry {
  /** `127.0.0.1:40123` */
  readonly host: string
  /** Its folder: `storage` holds the blobs, `ca.pem` its authority. */
  readonly folder: string
  /** What our client needs to reach it. */
  readonly access: RegistryAccess
  /** All requests answered so far, in order; the log lags behind by a moment. */
  readonly requests: readonly AnsweredRequest[]
  /** Bytes of blobs sent so far. */
  blobBytesSent(): number
  /** The file of a blob, to look into or to damage. */
  blobPath(digest: string): string
  /** Kills it at once and waits until it is gone; what it stored stays. */
  kill(): Promise<void>
  /** Starts it again at the same address after `kill`. */
  start(): Promise<void>
  freeze(): void
  thaw(): void
  /** Ends the process and removes the folder. */
  stop(): Promise<void>
}

const readyMs = 20_000

/** Resolves when it listens. Call `stop` in afterAll or onTestFinished. */
export async function startTestRegistry(init: TestRegistryInit = {}): Promise<TestRegistry> {
  const folder = mkdtempSync(join(tmpdir(), 'macfleet-registry-'))
  const address = init.address ?? '127.0.0.1'
  const requests: AnsweredRequest[] = []
  let child: ChildProcess | undefined
  let host = `${address}:${init.port ?? 0}`
  const kill = async (): Promise<void> => {
    if (child === undefined) return
    child.kill('SIGKILL')
    if (child.exitCode === null && child.signalCode === null) await once(child, 'exit')
    child = undefined
  }
  const start = async (): Promise<void> => {
    const file = join(folder, 'config.json')
    writeFileSync(file, JSON.stringify(configurationOf(init, folder, host)), { mode: 0o600 })
    const started = launch(init.namespace, file)
    child = started
    host = await listening(started, requests)
  }
  const stop = async (): Promise<void> => {
    await kill()
    rmSync(folder, { recursive: true, force: true })
  }
  try {
    mkdirSync(join(folder, 'storage'))
    if (init.tls) makeCertificates(folder, address)
    if (init.credentials) makePasswords(folder, init.credentials)
    await start()
  } catch (error) {
    await stop()
    throw error
  }
  return {
    host,
    folder,
    access: {
      host,
      ...(init.tls
        ? { authorities: readFileSync(join(folder, 'ca.pem'), 'utf8') }
        : { plainHttp: true }),
      ...(init.credentials && { credentials: init.credentials }),
    },
    requests,
    blobBytesSent: () =>
      requests
        .filter(({ method, uri }) => method === 'GET' && uri.includes('/blobs/sha256:'))
        .reduce((sum, { sentBytes }) => sum + sentBytes, 0),
    blobPath(digest) {
      const hash = digest.replace('sha256:', '')
      const blobs = join(folder, 'storage/docker/registry/v2/blobs/sha256')
      return join(blobs, hash.slice(0, 2), hash, 'data')
    },
    kill,
    start,
    freeze: () => child?.kill('SIGSTOP'),
    thaw: () => child?.kill('SIGCONT'),
    stop,
  }
}

/** Its configuration file is YAML, of which JSON is a part. */
function configurationOf(init: TestRegistryInit, folder: string, host: string): object {
  return {
    version: '0.1',
    log: { level: 'info', formatter: 'json', accesslog: { disabled: true } },
    storage: { filesystem: { rootdirectory: join(folder, 'storage') }, delete: { enabled: true } },
    http: {
      addr: host,
      // Uploads are known again after a restart.
      secret: 'of these tests',
      ...(init.tls && {
        tls: { certificate: join(folder, 'certificate.pem'), key: join(folder, 'key.pem') },
      }),
    },
    ...(init.credentials && {
      auth: { htpasswd: { realm: 'test', path: join(folder, 'htpasswd') } },
    }),
    ...init.configuration,
  }
}

function launch(namespace: string | undefined, file: string): ChildProcess {
  const serve = ['setpriv', '--pdeathsig', 'KILL', 'docker-registry', 'serve', file]
  const command = namespace === undefined ? serve : ['ip', 'netns', 'exec', namespace, ...serve]
  const [program = '', ...args] = command
  return spawn(program, args, { stdio: ['ignore', 'ignore', 'pipe'] })
}

/** Follows its log: resolves with the address it listens on, then notes what it answers. */
function listening(child: ChildProcess, requests: AnsweredRequest[]): Promise<string> {
  const { promise, resolve, reject } = Promise.withResolvers<string>()
  let said = ''
  const timer = setTimeout(() => reject(new Error(`docker-registry waits: ${said}`)), readyMs)
  child.on('error', reject)
  child.on('exit', () => reject(new Error(`docker-registry ended: ${said}`)))
  if (child.stderr === null) throw new Error('docker-registry has no standard error')
  createInterface({ input: child.stderr }).on('line', line => {
    said = `${said}\n${line}`.slice(-4_000)
    const entry = parseLine(line)
    const address = /listening on ([\d.]+:\d+|\[[\d:a-f]+\]:\d+)/.exec(entry['msg'] ?? '')?.[1]
    if (address !== undefined) resolve(address)
    if (entry['msg'] !== 'response completed') return
    requests.push({
      method: entry['http.request.method'] ?? '',
      uri: entry['http.request.uri'] ?? '',
      status: Number(entry['http.response.status']),
      sentBytes: Number(entry['http.response.written']),
    })
  })
  return promise.finally(() => clearTimeout(timer))
}

function parseLine(line: string): Record<string, string> {
  try {
    return JSON.parse(line) as Record<string, string>
  } catch {
    return {}
  }
}

function makePasswords(folder: string, { username, password }: Record<string, string>): void {
  const args = ['-niB', '-C', '4', username ?? '']
  const line = execFileSync('htpasswd', args, { input: `${password}\n` })
  writeFileSync(join(folder, 'htpasswd'), line, { mode: 0o600 })
}

/** An authority (ca.pem) and a certificate by it (certificate.pem, key.pem). */
function makeCertificates(folder: string, address: string): void {
  const path = (name: string): string => join(folder, name)
  const openssl = (...args: string[]): void => {
    execFileSync('openssl', args, { stdio: 'ignore' })
  }
  const fresh = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes']
  const authority = ['-keyout', path('ca-key.pem'), '-out', path('ca.pem')]
  openssl('req', '-x509', ...fresh, ...authority, '-days', '2', '-subj', '/CN=test registry CA')
  const subject = ['-subj', '/CN=test registry', '-addext', `subjectAltName=IP:${address}`]
  const signer = ['-CA', path('ca.pem'), '-CAkey', path('ca-key.pem'), '-days', '2']
  const files = ['-keyout', path('key.pem'), '-out', path('certificate.pem')]
  openssl('req', '-x509', ...fresh, ...files, ...subject, ...signer)
}

/**
 * Runs skopeo to its end, in a network namespace if one is named, and returns what it printed.
 * Fails with what it said.
 */
export async function skopeo(args: readonly string[], namespace?: string): Promise<string> {
  const command = ['skopeo', '--insecure-policy', ...args]
  const whole = namespace === undefined ? command : ['ip', 'netns', 'exec', namespace, ...command]
  const [program = '', ...rest] = whole
  const { stdout } = await promisify(execFile)(program, rest, { maxBuffer: 16 * 1024 * 1024 })
  return stdout
}
