import { mkdtemp, rm } from 'node:fs/promises'
import { request as httpRequest, type IncomingMessage } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { PassThrough, Readable } from 'node:stream'
import { type Clock, systemClock } from '../../base/clock.ts'
import { failure } from '../../base/errors.ts'
import { defaultLimits, type Limits } from '../../base/limits.ts'
import { type Log, silentLog } from '../../base/log.ts'
import { createMetrics } from '../../base/metrics.ts'
import { systemRandom } from '../../base/random.ts'
import { createObjects, type Guard, type Objects } from '../../cluster/objects.ts'
import { createMemoryStore } from '../../cluster/store/memory.ts'
import type { Store } from '../../cluster/store/store.ts'
import type { FleetOperations } from '../../interface/api/fleet-operations.ts'
import { type ApiServer, startApiServer } from '../../interface/api/server.ts'
import type { Subresources } from '../../interface/api/subresources.ts'
import { namespaceKind } from '../../resources/namespace.ts'
import { createTestFleet } from './fleet.ts'

/** An answer, read to its end. */
export interface Answer {
  code: number
  headers: IncomingMessage['headers']
  text: string
  /** The text as JSON; undefined when it is none. Loosely typed: tests say what they expect. */
  // biome-ignore lint/suspicious/noExplicitAny: answers of every shape are looked into by tests
  json: any
}

/** What a request of a test carries. */
export interface TestRequest {
  /** Sent as JSON, unless it is a text or bytes. */
  body?: unknown
  headers?: Record<string, string>
}

/** An API server of its own on a real unix socket, over a store in memory. */
export interface TestApi {
  socketPath: string
  objects: Objects
  store: Store
  request(method: string, path: string, options?: TestRequest): Promise<Answer>
  /** Sends a request without a body and hands over the answer as it comes. */
  open(path: string, headers?: Record<string, string>): Promise<IncomingMessage>
  close(): Promise<void>
}

/** What a test may choose. */
export interface TestApiInit {
  limits?: Partial<Limits>
  guards?: readonly Guard[]
  subresources?: Partial<Subresources>
  fleet?: Partial<FleetOperations>
  readiness?: Record<string, () => Promise<unknown>>
  log?: Log
  clock?: Clock
  staleSince?(): string | undefined
}

/** Starts a server with the namespaces default, a and ab. */
export async function startTestApi(init: TestApiInit = {}): Promise<TestApi> {
  const folder = await mkdtemp(join(tmpdir(), 'macfleet-api-'))
  const socketPath = join(folder, 'api.sock')
  const limits = { ...defaultLimits, ...init.limits }
  const common = { clock: init.clock ?? systemClock, random: systemRandom, limits }
  const log = init.log ?? silentLog
  const store = createMemoryStore({ ...common, log })
  const objects = createObjects({ guards: init.guards ?? [] }, { ...common, store })
  for (const name of ['default', 'a', 'ab']) {
    await objects.create(namespaceKind, { apiVersion: 'v1', kind: 'Namespace', metadata: { name } })
  }
  const server = await startApiServer(
    {
      socketPath,
      socketGroup: 'no-such-group',
      version: '0.0.0',
      readiness: init.readiness ?? {},
      subresources: { ...testSubresources, ...init.subresources },
      fleet: createTestFleet(init.fleet),
      staleSince: () => init.staleSince?.(),
    },
    { ...common, log, objects, metrics: createMetrics() },
  )
  const open = (path: string, headers: Record<string, string> = {}) =>
    send(socketPath, 'GET', path, { headers })
  return {
    socketPath,
    objects,
    store,
    open,
    async request(method, path, options = {}) {
      return readAnswer(await send(socketPath, method, path, options))
    },
    async close() {
      await server.close()
      await store.close()
      await rm(folder, { recursive: true, force: true })
    },
  }
}

/** Only a server, on a socket that the test has chosen. */
export function serveTest(socketPath: string): Promise<ApiServer> {
  const limits = defaultLimits
  const common = { clock: systemClock, random: systemRandom, limits, log: silentLog }
  const objects = createObjects({}, { ...common, store: createMemoryStore(common) })
  return startApiServer(
    {
      socketPath,
      socketGroup: 'no-such-group',
      version: '0.0.0',
      readiness: {},
      subresources: testSubresources,
      fleet: createTestFleet(),
      staleSince: () => undefined,
    },
    { ...common, objects, metrics: createMetrics() },
  )
}

function send(
  socketPath: string,
  method: string,
  path: string,
  { body, headers = {} }: TestRequest,
): Promise<IncomingMessage> {
  const isRaw = typeof body === 'string' || Buffer.isBuffer(body)
  const bytes = body === undefined ? undefined : isRaw ? body : JSON.stringify(body)
  const type = bytes === undefined || isRaw ? {} : { 'content-type': 'application/json' }
  const length = bytes === undefined ? {} : { 'content-length': Buffer.byteLength(bytes) }
  return new Promise((resolve, reject) => {
    const request = httpRequest({
      socketPath,
      method,
      path,
      agent: false,
      headers: { ...type, ...length, ...headers },
    })
    request.on('response', resolve)
    request.on('error', reject)
    request.end(bytes)
  })
}

/** Reads an answer to its end. */
export async function readAnswer(message: IncomingMessage): Promise<Answer> {
  const chunks: Buffer[] = []
  for await (const chunk of message) chunks.push(chunk)
  const text = Buffer.concat(chunks).toString()
  let json: unknown
  try {
    json = JSON.parse(text)
  } catch {
    json = undefined
  }
  return { code: message.statusCode ?? 0, headers: message.headers, text, json }
}

/** The lines of an answer that stays open, as JSON. */
export async function* readLines(message: IncomingMessage): AsyncGenerator<unknown> {
  let rest = ''
  for await (const chunk of message) {
    const lines = `${rest}${chunk}`.split('\n')
    rest = lines.pop() ?? ''
    for (const line of lines) if (line !== '') yield JSON.parse(line)
  }
}

/** Subresources that need no guest: an echoing console, `cat` and `false` as commands. */
const testSubresources: Subresources = {
  async openConsole() {
    return new PassThrough()
  },
  async prepareCommand(_, { command }) {
    if (command[0] === 'missing') throw failure('agentUnavailable', { detail: 'test' })
    return async session => {
      if (command[0] === 'cat') {
        for await (const chunk of session.input) await session.send('stdout', chunk)
      }
      return { exitCode: command[0] === 'false' ? 3 : 0 }
    }
  },
  openLog: async () => Readable.from(['line 1\n', 'line 2\n']),
  async receiveImagePart(image, _, bytes) {
    for await (const _ of bytes);
    return image
  },
  commitMachine: async (machine, { name, description = '', pinned }) => ({
    apiVersion: 'macfleet.dev/v1',
    kind: 'Image',
    metadata: { name, namespace: machine.metadata.namespace },
    spec: { description, arch: 'x86_64', machine: 'linux', firmware: 'bios', pinned },
  }),
  async *pushImage(_, { reference }) {
    yield { progress: { stage: 'Pushing', doneBytes: 1, totalBytes: 2 } }
    if (reference.startsWith('refused')) throw failure('agentUnavailable', { detail: 'test' })
    yield { pushed: { reference, digest: 'sha256:0', sentBytes: 2, chunks: 1 } }
  },
  verifyImage: async (_, { repair }) => ({ ok: true, repair }),
  listLibrary: async () => ({ entries: [], isWhole: true }),
  checkLibrary: async name => ({ name, wrong: [] }),
  inspectImage: async () => 'a text',
}

/** A machine as a user sends it. */
export const machineBody = (name: string, spec: object = {}, metadata: object = {}) => ({
  apiVersion: 'macfleet.dev/v1',
  kind: 'VirtualMachine',
  metadata: { name, ...metadata },
  spec: { image: 'micro', ...spec },
})

/** The path of machines in a namespace. */
export const machines = (namespace = 'default'): string =>
  `/apis/macfleet.dev/v1/namespaces/${namespace}/virtualmachines`
