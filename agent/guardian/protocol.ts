import { constants } from 'node:os'
import { failure, messageOf } from '../../base/errors.ts'
import type { Limits } from '../../base/limits.ts'
import type { ProcessIdentity } from '../../base/process-identity.ts'
import { checkTiming, defaultTiming, type Timing } from '../../cluster/fleet/timing.ts'
import type { LeaseState } from './deadline.ts'

/** A log that a process writes and the guardian keeps small. */
export interface GuardedLog {
  path: string
  /** Beyond so many bytes its content moves to `PATH.1`, of which there is one. */
  limitBytes: number
}

/** Under which lease of the host a guest was claimed. */
export interface GuestClaim {
  /** The create revision of the host's lease key, as the store tells it. */
  leaseRevision: number
  /** Whether it may be replaced when the host is lost, and so must die by the lease's deadline. */
  fenced: boolean
}

/** What the guardian is to start, and where it leaves what it learns. */
export interface StartParameters {
  /** Unique on this host, for example a virtual machine's uid; also the name of files. */
  name: string
  /**
   * A program; found in PATH when it has no slash. It has to set its parent-death signal itself.
   */
  command: string
  arguments: string[]
  /** `/` by default. */
  workingFolder?: string
  /** The process gets these and PATH, and nothing else of the guardian's environment. */
  environment?: Record<string, string>
  /** Gets the last bytes (limits.lastWordsBytes) of standard output and standard error. */
  stderrPath: string
  /** Gets an `ExitRecord` as JSON when the process has ended. */
  exitPath: string
  /** The process opens them itself, with O_APPEND. */
  logs: GuardedLog[]
  /** -1000 to 1000 (proc(5), oom_score_adj); 0 by default, never the guardian's own. */
  oomScoreAdjust?: number
  /** Of a guest in a fleet: without that lease, alive, it is not started. */
  claim?: GuestClaim
}

/** The host's lease, and how it is renewed. */
export interface LeaseParameters {
  /** Etcd's id, in decimal. */
  leaseId: string
  leaseRevision: number
  /** The host's lease key as etcd has it. */
  key: string
  /** `https://ADDRESS:PORT` of etcd's members; at most `timing.endpointsMost`. */
  endpoints: string[]
  /** Files in PEM. */
  tls: { authorityPath: string; certificatePath: string; keyPath: string }
  /** The spans for which the lease was granted. */
  timing: Timing
  /** Boot time in milliseconds just before it was asked for; absent when its key was found. */
  grantedMs?: number
}

/** A guest that dies by a deadline. */
export interface FencedGuest {
  name: string
  /** Absent while it is being started. */
  identity?: ProcessIdentity
  /** Boot time in milliseconds. */
  deadlineMs: number
}

/** What the daemon needs to know to do the guardian's duty when that is silent. */
export interface HeartbeatAnswer {
  /** Absent when none is held. */
  lease?: LeaseState
  fenced: FencedGuest[]
}

/**
 * Why a process ended: by itself or by a signal (`exited`); because the guardian was told to stop
 * (`guardianStopped`); because the host's lease was not renewed (`fenced`); or with a guardian that
 * died, so that nobody knows its exit code (`guardianLost`).
 */
export type EndReason = 'exited' | 'guardianStopped' | 'guardianLost' | 'fenced'

/** How a process ended. */
export interface ExitRecord {
  reason: EndReason
  /** The exit code; null when a signal ended it, or nobody knows. */
  code: number | null
  /** The signal's name; null when it ended by itself, or nobody knows. */
  signal: string | null
  /** RFC 3339; for `guardianLost` the moment at which it was noticed. */
  endedAt: string
  /** The last bytes (limits.lastWordsTailBytes) of what it said. */
  stderrTail: string
}

/** One process of the guardian. Without identity: the guardian died while it was starting it. */
export interface GuardedProcess {
  name: string
  identity?: ProcessIdentity
  /** RFC 3339. */
  startedAt: string
  /** Absent while it runs. */
  ended?: ExitRecord
}

/** What a guardian says of itself. */
export interface GuardianHello extends ProcessIdentity {
  /** macfleet's version. */
  version: string
}

/** Pushed to every client when a process has ended. */
export interface ExitEvent extends GuardedProcess {
  event: 'exit'
  ended: ExitRecord
}

/** The requests, by method: what they carry and what they answer. */
export interface GuardianMethods {
  hello: { parameters: Record<string, never>; result: GuardianHello }
  start: { parameters: StartParameters; result: ProcessIdentity }
  list: { parameters: Record<string, never>; result: GuardedProcess[] }
  signal: {
    parameters: { name: string; signal: NodeJS.Signals; identity: ProcessIdentity }
    result: { delivered: boolean }
  }
  forget: { parameters: { name: string }; result: Record<string, never> }
  stop: { parameters: { force: boolean }; result: Record<string, never> }
  lease: { parameters: LeaseParameters; result: Record<string, never> }
  endLease: { parameters: Record<string, never>; result: Record<string, never> }
  heartbeat: { parameters: Record<string, never>; result: HeartbeatAnswer }
  expectSilence: { parameters: { forMs: number }; result: Record<string, never> }
  claim: {
    parameters: { name: string; claim: GuestClaim; ahead: boolean }
    result: Record<string, never>
  }
}

/** The name of a request. */
export type GuardianMethod = keyof GuardianMethods

/** A request whose parameters were checked. */
export type GuardianRequest = {
  [Method in GuardianMethod]: {
    id: number
    method: Method
    parameters: GuardianMethods[Method]['parameters']
  }
}[GuardianMethod]

type Fields = Record<string, unknown>

/** Names are file names, unit names and words of a log: nothing that needs quoting. */
const namePattern = /^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$/

/** Whether `name` may name a process. */
export function isProcessName(name: string): boolean {
  return namePattern.test(name)
}

/** Whether a parsed JSON value is an object. */
export function isFields(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/**
 * What a line is, before anything of it is believed; undefined when it is no request at all, and
 * its sender is no client of ours.
 */
export function parseEnvelope(
  line: string,
): { id: number; method: string; parameters: Fields } | undefined {
  let value: unknown
  try {
    value = JSON.parse(line)
  } catch {
    return undefined
  }
  if (!isFields(value)) return undefined
  const { id, method, parameters = {} } = value
  if (!Number.isSafeInteger(id) || typeof id !== 'number') return undefined
  if (typeof method !== 'string' || method.length > 100 || !isFields(parameters)) return undefined
  return { id, method, parameters }
}

/**
 * Checks the parameters of a request.
 * @throws guardianRefused, which names the field
 */
export function checkRequest(
  envelope: { id: number; method: string; parameters: Fields },
  limits: Limits,
): GuardianRequest {
  const { id, method, parameters } = envelope
  const read = createReader(method, parameters)
  switch (method) {
    case 'hello':
    case 'list':
    case 'endLease':
    case 'heartbeat':
      return { id, method, parameters: {} }
    case 'start':
      return { id, method, parameters: readStart(read, limits) }
    case 'signal':
      return {
        id,
        method,
        parameters: { name: read.name(), signal: read.signal(), identity: read.identity() },
      }
    case 'forget':
      return { id, method, parameters: { name: read.name() } }
    case 'stop':
      return { id, method, parameters: { force: parameters['force'] === true } }
    case 'lease':
      return { id, method, parameters: readLease(read, limits) }
    case 'expectSilence':
      return { id, method, parameters: { forMs: read.integer('forMs', 0, dayMs) } }
    case 'claim': {
      const claim = read.claim()
      if (claim === undefined) throw read.refuse('claim must be an object')
      const ahead = parameters['ahead'] === true
      return { id, method, parameters: { name: read.name(), claim, ahead } }
    }
    default:
      throw failure('guardianRefused', { method, detail: 'it has no such method' })
  }
}

function readStart(read: Reader, limits: Limits): StartParameters {
  return {
    name: read.name(),
    command: read.text('command'),
    arguments: read.texts('arguments'),
    workingFolder: read.optionalPath('workingFolder'),
    environment: read.environment(),
    stderrPath: read.path('stderrPath'),
    exitPath: read.path('exitPath'),
    logs: read.logs(limits.guardedLogs),
    oomScoreAdjust: read.optionalInteger('oomScoreAdjust', -1000, 1000),
    claim: read.claim(),
  }
}

const dayMs = 86_400_000

function readLease(read: Reader, limits: Limits): LeaseParameters {
  const leaseId = read.text('leaseId')
  if (!/^[0-9]{1,20}$/.test(leaseId)) throw read.refuse('leaseId must be a decimal number')
  const key = read.text('key')
  if (key.length > limits.storeKeyBytes) throw read.refuse('key is too long')
  const timing = read.timing()
  const endpoints = read.texts('endpoints')
  if (endpoints.length === 0 || endpoints.length > timing.endpointsMost) {
    throw read.refuse(`endpoints must be 1 to ${timing.endpointsMost}`)
  }
  if (!endpoints.every(isSecureOrigin)) throw read.refuse('endpoints must be https://ADDRESS:PORT')
  const leaseRevision = read.integer('leaseRevision', 1, Number.MAX_SAFE_INTEGER)
  const grantedMs = read.optionalInteger('grantedMs', 0, Number.MAX_SAFE_INTEGER)
  return { leaseId, leaseRevision, key, endpoints, tls: read.tls(), timing, grantedMs }
}

function isSecureOrigin(text: string): boolean {
  const url = URL.parse(text)
  return url?.protocol === 'https:' && `${url.origin}/` === url.href && text.length <= 300
}

type Reader = ReturnType<typeof createReader>

function createReader(method: string, fields: Fields) {
  const refuse = (detail: string) => failure('guardianRefused', { method, detail })
  const textOf = (value: unknown, field: string): string => {
    if (typeof value === 'string' && value !== '' && !value.includes('\0')) return value
    throw refuse(`${field} must be a string`)
  }
  const pathOf = (value: unknown, field: string): string => {
    const path = textOf(value, field)
    if (path.startsWith('/')) return path
    throw refuse(`${field} must be an absolute path`)
  }
  const integerOf = (value: unknown, field: string, least: number, most: number): number => {
    if (typeof value === 'number' && Number.isInteger(value) && value >= least && value <= most) {
      return value
    }
    throw refuse(`${field} must be a whole number from ${least} to ${most}`)
  }
  const arrayOf = (field: string): unknown[] => {
    const value = fields[field]
    if (Array.isArray(value)) return value
    throw refuse(`${field} must be a list`)
  }
  return {
    refuse,
    integer: (field: string, least: number, most: number) =>
      integerOf(fields[field], field, least, most),
    claim(): GuestClaim | undefined {
      const claim = fields['claim']
      if (claim === undefined) return undefined
      if (!isFields(claim)) throw refuse('claim must be an object')
      const { leaseRevision: revision, fenced } = claim
      if (typeof fenced !== 'boolean') throw refuse('claim.fenced must be a boolean')
      const most = Number.MAX_SAFE_INTEGER
      return { leaseRevision: integerOf(revision, 'claim.leaseRevision', 1, most), fenced }
    },
    tls(): LeaseParameters['tls'] {
      const tls = fields['tls']
      if (!isFields(tls)) throw refuse('tls must be an object')
      return {
        authorityPath: pathOf(tls['authorityPath'], 'tls.authorityPath'),
        certificatePath: pathOf(tls['certificatePath'], 'tls.certificatePath'),
        keyPath: pathOf(tls['keyPath'], 'tls.keyPath'),
      }
    },
    timing(): Timing {
      const given = fields['timing']
      if (!isFields(given)) throw refuse('timing must be an object')
      const timing = { ...defaultTiming }
      for (const name of Object.keys(defaultTiming) as (keyof Timing)[]) {
        const value = given[name]
        const isSpan = typeof value === 'number' && value >= 0 && value <= dayMs
        if (!isSpan) throw refuse(`timing.${name} must be a number`)
        timing[name] = value
      }
      try {
        checkTiming(timing)
      } catch (error) {
        throw refuse(messageOf(error))
      }
      return timing
    },
    name(): string {
      const name = textOf(fields['name'], 'name')
      if (isProcessName(name)) return name
      throw refuse('name must be 1 to 100 letters, digits, dots, dashes and underscores')
    },
    text: (field: string) => textOf(fields[field], field),
    path: (field: string) => pathOf(fields[field], field),
    optionalPath: (field: string) =>
      fields[field] === undefined ? undefined : pathOf(fields[field], field),
    optionalInteger: (field: string, least: number, most: number) =>
      fields[field] === undefined ? undefined : integerOf(fields[field], field, least, most),
    texts: (field: string) =>
      arrayOf(field).map(value => {
        if (typeof value === 'string' && !value.includes('\0')) return value
        throw refuse(`${field} must be strings`)
      }),
    environment(): Record<string, string> | undefined {
      const value = fields['environment']
      if (value === undefined) return undefined
      if (!isFields(value)) throw refuse('environment must be an object')
      const pairs = Object.entries(value).map(([key, text]) => {
        if (typeof text === 'string' && !`${key}${text}`.includes('\0')) return [key, text] as const
        throw refuse(`environment.${key} must be a string`)
      })
      return Object.fromEntries(pairs)
    },
    logs(most: number): GuardedLog[] {
      const logs = arrayOf('logs')
      if (logs.length > most) throw refuse(`at most ${most} logs`)
      return logs.map(log => {
        if (!isFields(log)) throw refuse('logs must be objects')
        const limitBytes = integerOf(log['limitBytes'], 'limitBytes', 1024, 2 ** 40)
        return { path: pathOf(log['path'], 'path'), limitBytes }
      })
    },
    signal(): NodeJS.Signals {
      const signal = textOf(fields['signal'], 'signal')
      if (isSignal(signal)) return signal
      throw refuse(`there is no signal ${signal}`)
    },
    identity(): ProcessIdentity {
      const identity = fields['identity']
      if (!isFields(identity)) throw refuse('identity must be an object')
      return {
        pid: integerOf(identity['pid'], 'pid', 2, 2 ** 31),
        startTicks: integerOf(identity['startTicks'], 'startTicks', 0, Number.MAX_SAFE_INTEGER),
      }
    },
  }
}

function isSignal(name: string): name is NodeJS.Signals {
  return Object.hasOwn(constants.signals, name)
}
