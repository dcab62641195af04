import { isIP } from 'node:net'
import { type Static, type TSchema, Type } from 'typebox'
import { Check } from 'typebox/value'
import { sleep } from '../base/clock.ts'
import { failure } from '../base/errors.ts'
import {
  type AgentChannel,
  type AgentChannelComponents,
  type AgentChannelInit,
  createAgentChannel,
  printable,
} from './agent-channel.ts'

/** Options of every request: how long the agent may take, and a way to give up earlier. */
export interface AgentOptions {
  /** 5 s by default. */
  timeoutMs?: number
  signal?: AbortSignal
}

/** A network interface as the guest describes it. */
export interface GuestInterface {
  name: string
  /** In lower case with colons; undefined for interfaces without one. */
  mac: string | undefined
  addresses: { address: string; family: 'ipv4' | 'ipv6'; prefix: number }[]
}

/** A program to run in a guest. */
export interface GuestCommand {
  /** Found by the agent's PATH when it holds no slash. */
  path: string
  args?: readonly string[]
  /** `NAME=value`; replaces the agent's own environment when given. */
  environment?: readonly string[]
  /** Its standard input. */
  input?: Uint8Array
}

/** How a program in a guest ended. */
export interface GuestCommandResult {
  /** The exit code; null when a signal ended it. */
  code: number | null
  /** The signal's number (Windows: the exception's); null when it ended by itself. */
  signal: number | null
  stdout: Buffer
  stderr: Buffer
  /** True when the agent or we cut the output. */
  truncated: boolean
}

/** What the guest says it is; every field may be missing. */
export interface GuestSystem {
  /** For example `debian`. */
  id: string | undefined
  /** For example `Debian GNU/Linux 12 (bookworm)`. */
  name: string | undefined
  version: string | undefined
  kernel: string | undefined
  machine: string | undefined
}

/** Whether a guest's file systems hold still. */
export type FreezeStatus = 'thawed' | 'frozen'

/**
 * The QEMU guest agent of one guest (QEMU guest agent protocol reference). Whatever it says comes
 * from the guest and is checked, cut to a bounded size, and never believed beyond its own guest.
 * Every method throws what AgentChannel.request does, and agentAnswerInvalid.
 */
export interface GuestAgent {
  /** Resolves when the agent answers. */
  ping(options?: AgentOptions): Promise<void>
  networkInterfaces(options?: AgentOptions): Promise<GuestInterface[]>
  /**
   * Runs a program to its end. When time is up or the signal is aborted the program goes on in the
   * guest, without anybody who waits for it.
   * @param options timeoutMs is for the program here, 30 s by default
   */
  execute(command: GuestCommand, options?: AgentOptions): Promise<GuestCommandResult>
  /** Asks the guest to shut down; resolves when it was asked, not when it is down. */
  shutdown(mode?: 'powerdown' | 'reboot' | 'halt', options?: AgentOptions): Promise<void>
  /**
   * Freezes every file system, 60 s by default; resolves with how many. Thaw soon: the guest
   * stalls.
   */
  freeze(options?: AgentOptions): Promise<number>
  thaw(options?: AgentOptions): Promise<number>
  freezeStatus(options?: AgentOptions): Promise<FreezeStatus>
  system(options?: AgentOptions): Promise<GuestSystem>
  /** Sets the guest's clock. @param wallMs milliseconds since the epoch */
  setTime(wallMs: number, options?: AgentOptions): Promise<void>
  /** Fails what is waiting and disconnects; a later request fails. */
  close(): void
}

const optional = Type.Optional
const text = Type.String()

const interfacesSchema = Type.Array(
  Type.Object({
    name: text,
    'hardware-address': optional(text),
    'ip-addresses': optional(
      Type.Array(
        Type.Object({ 'ip-address': text, 'ip-address-type': text, prefix: Type.Integer() }),
      ),
    ),
  }),
)

const execStatusSchema = Type.Object({
  exited: Type.Boolean(),
  exitcode: optional(Type.Integer()),
  signal: optional(Type.Integer()),
  'out-data': optional(text),
  'err-data': optional(text),
  'out-truncated': optional(Type.Boolean()),
  'err-truncated': optional(Type.Boolean()),
})

const systemSchema = Type.Object({
  id: optional(text),
  name: optional(text),
  'pretty-name': optional(text),
  version: optional(text),
  'version-id': optional(text),
  'kernel-release': optional(text),
  machine: optional(text),
})

const defaultTimeoutMs = 5000
const pollFirstMs = 10
const pollMostMs = 500

/** Makes a client for a guest's agent; it connects with the first request. */
export function createGuestAgent(
  init: AgentChannelInit,
  components: AgentChannelComponents,
): GuestAgent {
  return new Agent(createAgentChannel(init, components), components)
}

class Agent implements GuestAgent {
  readonly #channel: AgentChannel
  readonly #components: AgentChannelComponents

  constructor(channel: AgentChannel, components: AgentChannelComponents) {
    this.#channel = channel
    this.#components = components
  }

  async ping(options?: AgentOptions): Promise<void> {
    await this.#ask('guest-ping', {}, Type.Object({}), options)
  }

  async networkInterfaces(options?: AgentOptions): Promise<GuestInterface[]> {
    const found = await this.#ask('guest-network-get-interfaces', {}, interfacesSchema, options)
    const most = this.#components.limits.agentInterfaces
    return found.slice(0, most).map(one => ({
      name: printable(one.name).slice(0, 64),
      mac: macOf(one['hardware-address']),
      addresses: (one['ip-addresses'] ?? []).slice(0, most).flatMap(addressOf),
    }))
  }

  async execute(command: GuestCommand, options?: AgentOptions): Promise<GuestCommandResult> {
    const { clock, limits } = this.#components
    const timeoutMs = options?.timeoutMs ?? 30_000
    const deadlineMs = clock.monotonicMs() + timeoutMs
    const limitBytes = limits.agentCommandBytes
    if ((command.input?.length ?? 0) > limitBytes) throw failure('tooLarge', { limitBytes })
    const signal = options?.signal ? { signal: options.signal } : {}
    const started = Type.Object({ pid: Type.Integer() })
    const { pid } = await this.#ask('guest-exec', execArguments(command), started, signal)
    for (let waitMs = pollFirstMs; ; waitMs = Math.min(pollMostMs, 2 * waitMs)) {
      const status = await this.#ask('guest-exec-status', { pid }, execStatusSchema, signal)
      if (status.exited) return resultOf(status, limitBytes)
      const leftMs = deadlineMs - clock.monotonicMs()
      if (leftMs <= 0) throw failure('timeout', { what: `${command.path} in the guest`, timeoutMs })
      await sleep(clock, Math.min(waitMs, leftMs), options?.signal)
    }
  }

  async shutdown(
    mode: 'powerdown' | 'reboot' | 'halt' = 'powerdown',
    options?: AgentOptions,
  ): Promise<void> {
    const { timeoutMs = 1000, ...rest } = options ?? {}
    const silent = { ...rest, timeoutMs, silenceIsSuccess: true }
    await this.#channel.request('guest-shutdown', { mode }, silent)
  }

  async freeze(options?: AgentOptions): Promise<number> {
    return await this.#ask('guest-fsfreeze-freeze', {}, Type.Integer(), slow(options))
  }

  async thaw(options?: AgentOptions): Promise<number> {
    return await this.#ask('guest-fsfreeze-thaw', {}, Type.Integer(), slow(options))
  }

  async freezeStatus(options?: AgentOptions): Promise<FreezeStatus> {
    const schema = Type.Enum(['thawed', 'frozen'])
    return await this.#ask('guest-fsfreeze-status', {}, schema, options)
  }

  async system(options?: AgentOptions): Promise<GuestSystem> {
    const found = await this.#ask('guest-get-osinfo', {}, systemSchema, options)
    const clean = (value: string | undefined) => value && printable(value).slice(0, 200)
    return {
      id: clean(found.id),
      name: clean(found['pretty-name'] ?? found.name),
      version: clean(found['version-id'] ?? found.version),
      kernel: clean(found['kernel-release']),
      machine: clean(found.machine),
    }
  }

  async setTime(wallMs: number, options?: AgentOptions): Promise<void> {
    // The protocol counts nanoseconds, beyond what a number holds exactly; microseconds are enough.
    const time = Math.round(wallMs) * 1_000_000
    await this.#ask('guest-set-time', { time }, Type.Object({}), options)
  }

  close(): void {
    this.#channel.close()
  }

  async #ask<Schema extends TSchema>(
    command: string,
    args: object,
    schema: Schema,
    options?: AgentOptions,
  ): Promise<Static<Schema>> {
    const timeoutMs = options?.timeoutMs ?? defaultTimeoutMs
    const signal = options?.signal ? { signal: options.signal } : {}
    const returned = await this.#channel.request(command, args, { timeoutMs, ...signal })
    if (!Check(schema, returned)) throw failure('agentAnswerInvalid', { command })
    return returned
  }
}

/** Freezing waits for every write under way. */
function slow(options: AgentOptions | undefined): AgentOptions {
  return { timeoutMs: 60_000, ...options }
}

function execArguments(command: GuestCommand): object {
  return {
    path: command.path,
    arg: command.args ?? [],
    ...(command.environment && { env: command.environment }),
    ...(command.input && { 'input-data': Buffer.from(command.input).toString('base64') }),
    'capture-output': true,
  }
}

function resultOf(status: Static<typeof execStatusSchema>, limitBytes: number): GuestCommandResult {
  const stdout = decode(status['out-data'] ?? '', limitBytes)
  const stderr = decode(status['err-data'] ?? '', limitBytes)
  const cut = [status['out-truncated'], status['err-truncated'], stdout.cut, stderr.cut]
  return {
    code: status.exitcode ?? null,
    signal: status.signal ?? null,
    stdout: stdout.bytes,
    stderr: stderr.bytes,
    truncated: cut.includes(true),
  }
}

/** Base64 (RFC 4648, section 4) of at most `limitBytes`; more is cut before it is decoded. */
function decode(data: string, limitBytes: number): { bytes: Buffer; cut: boolean } {
  const lengthMax = Math.ceil(limitBytes / 3) * 4
  const bytes = Buffer.from(data.slice(0, lengthMax), 'base64').subarray(0, limitBytes)
  return { bytes, cut: data.length > lengthMax }
}

function macOf(value: string | undefined): string | undefined {
  const mac = value?.toLowerCase()
  return mac !== undefined && /^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/.test(mac) ? mac : undefined
}

type RawAddress = NonNullable<Static<typeof interfacesSchema>[number]['ip-addresses']>[number]

function addressOf(raw: RawAddress): GuestInterface['addresses'] {
  const { 'ip-address': address, prefix } = raw
  const version = isIP(address)
  // An address with a zone would name one of our interfaces.
  if (version === 0 || address.includes('%')) return []
  if (prefix < 0 || prefix > (version === 4 ? 32 : 128)) return []
  return [{ address, family: version === 4 ? 'ipv4' : 'ipv6', prefix }]
}
