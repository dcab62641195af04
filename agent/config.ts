import { readFileSync } from 'node:fs'
import { hostname } from 'node:os'
import { resolve } from 'node:path'
import { parseArgs } from 'node:util'
import Type, { type Static } from 'typebox'
import { Value } from 'typebox/value'
import { parse as parseYaml } from 'yaml'
import { failure } from '../base/errors.ts'
import { isErrno } from '../base/files.ts'
import { messageOf } from '../base/log.ts'
import { taintSchema } from '../resources/host.ts'
import { labelsSchema } from '../resources/metadata.ts'
import { quantitySchema } from '../resources/quantity.ts'
import { findCauses } from '../resources/validate.ts'

const strict = { additionalProperties: false }

const rangeSchema = (description: string, first: number, last: number, most: number) =>
  Type.Object(
    {
      first: Type.Integer({ minimum: 1, maximum: most, default: first }),
      last: Type.Integer({ minimum: 1, maximum: most, default: last }),
    },
    { ...strict, description, default: {} },
  )

const portSchema = (description: string, fallback: number) =>
  Type.Integer({ minimum: 1, maximum: 65_535, default: fallback, description })

const fleetSchema = Type.Object(
  {
    address: Type.Optional(
      Type.String({
        maxLength: 45,
        description: 'IP address for the other hosts; that of the default route when left out.',
      }),
    ),
    rack: Type.Optional(
      Type.String({
        pattern: '^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$',
        maxLength: 63,
        description: 'The rack it stands in; also its label `rack`.',
      }),
    ),
    peerPort: portSchema('HTTPS: joining and certificates.', 7480),
    gossipPort: portSchema('libp2p: gossip and small requests.', 7481),
    etcdClientPort: portSchema('etcd, where this host has a voter.', 7482),
    etcdPeerPort: portSchema('etcd among its voters.', 7483),
    transferPort: portSchema('HTTPS: parts of images for the other hosts.', 7484),
    transferRate: Type.Optional(
      quantitySchema('Bytes a second of images that other hosts get together; no bound if unset.'),
    ),
    transferRatePerHost: Type.Optional(quantitySchema('The same for each of them.')),
    etcd: Type.String({ default: 'etcd', description: 'The etcd program; 3.4 or newer.' }),
  },
  { ...strict, default: {}, description: 'How the other hosts of a fleet reach this one.' },
)

const registrySchema = Type.Object(
  {
    mirrors: Type.Optional(
      Type.Array(Type.String({ maxLength: 300 }), {
        maxItems: 16,
        description: 'Asked before the registry itself, in order; for pulling.',
      }),
    ),
    authoritiesFile: Type.Optional(
      Type.String({ description: "Certificates (PEM) to trust beside the system's." }),
    ),
    plainHttp: Type.Optional(Type.Boolean({ description: 'Speaks HTTP without TLS.' })),
  },
  strict,
)

/** The configuration file's schema; every setting has a default. */
export const configSchema = Type.Object(
  {
    hostName: Type.Optional(
      Type.String({
        pattern: '^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$',
        maxLength: 253,
        description: "This host's name in the fleet; the machine's own name when left out.",
      }),
    ),
    dataDir: Type.String({
      default: '/var/lib/macfleet',
      description: 'The store, images and disks of guests. Local disk, one daemon.',
    }),
    runDir: Type.String({
      default: '/run/macfleet',
      description: 'Sockets. Short, because a socket path has at most 107 bytes.',
    }),
    socket: Type.Optional(
      Type.String({ description: 'The API socket; macfleet.sock in runDir when left out.' }),
    ),
    socketGroup: Type.String({ default: 'macfleet', description: 'Who may use the API socket.' }),
    labels: Type.Optional(labelsSchema),
    taints: Type.Optional(
      Type.Array(taintSchema, { maxItems: 64, description: 'What keeps machines off this host.' }),
    ),
    macosGuests: Type.Optional(
      Type.Integer({
        minimum: 0,
        maximum: 64,
        description: 'The most macOS guests at a time (2); Apple allows two on one Mac.',
      }),
    ),
    placement: Type.Enum(['balance', 'pack'], {
      default: 'balance',
      description:
        'The emptiest host first, or the fullest that fits. The leader goes by its own: say it alike on all hosts.',
    }),
    fleet: fleetSchema,
    machineIdFile: Type.String({
      default: '/etc/machine-id',
      description:
        'Says which machine this is: a data folder copied to another one starts nothing.',
    }),
    joinTokenFile: Type.String({
      default: '/etc/macfleet/join-token',
      description: 'A join token; a host that is in no fleet and finds one joins by itself.',
    }),
    accelerator: Type.Enum(['auto', 'kvm', 'tcg'], {
      default: 'auto',
      description: 'How guests are executed; auto takes KVM where it works.',
    }),
    logLevel: Type.Enum(['debug', 'info', 'warn', 'error', 'silent'], { default: 'info' }),
    guardian: Type.Enum(['own', 'systemd'], {
      default: 'own',
      description: 'Who starts the guardian: the daemon when none answers, or systemd.',
    }),
    firewall: Type.Boolean({
      default: true,
      description: "Keep guests off this host's loopback and networks (needs root and nftables).",
    }),
    forwardAddress: Type.Optional(
      Type.String({
        description:
          "Address on which guests' ports are offered: without it 127.0.0.1, in a fleet that of the host.",
      }),
    ),
    forwardPorts: rangeSchema("Ports for guests' ports.", 20_000, 29_999, 65_535),
    guestUsers: rangeSchema('User ids for guests.', 210_000, 219_999, 4_294_967_294),
    registries: Type.Record(Type.String(), registrySchema, {
      default: {},
      description: 'How registries are reached, by `HOST[:PORT]`; others by HTTPS.',
    }),
    registryCredentialsFile: Type.String({
      default: '/etc/macfleet/registry-credentials.json',
      description: 'As docker has them in config.json (`auths`); for what no pullSecret is for.',
    }),
    imageQuota: Type.Optional(
      quantitySchema('Most that images take; what can be had again goes first. Unset: the disk.'),
    ),
    imageLibrary: Type.Optional(
      Type.String({ description: 'A folder of images, say on NFS: `library:NAME`. Read only.' }),
    ),
    cpuOvercommit: Type.Number({
      default: 4,
      minimum: 0.1,
      maximum: 64,
      description:
        'Allocatable cores = cores x this. Higher packs more; guests that compute at once get less each.',
    }),
    memoryReserve: quantitySchema('Memory that guests never get.', '512Mi'),
    diskReserve: quantitySchema(
      'Disk that stays free: nothing is started or imported below it.',
      '1Gi',
    ),
  },
  strict,
)

type Settings = Static<typeof configSchema>
/** How a registry is reached. */
export type RegistrySettings = Settings['registries'][string]
/** How the other hosts of a fleet reach this one. */
export type FleetSettings = Settings['fleet']

/** The settings of one daemon, complete and absolute. */
export interface Config extends Settings {
  hostName: string
  socket: string
}

const flags = {
  config: { type: 'string' },
  'data-dir': { type: 'string' },
  'run-dir': { type: 'string' },
  socket: { type: 'string' },
  'host-name': { type: 'string' },
  accelerator: { type: 'string' },
  'log-level': { type: 'string' },
  guardian: { type: 'string' },
  'repair-store': { type: 'boolean' },
  adopt: { type: 'boolean' },
  help: { type: 'boolean', short: 'h' },
  version: { type: 'boolean' },
} as const

/** What `macfleetd` was asked to do. */
export interface Invocation {
  action: 'serve' | 'repair-store' | 'adopt' | 'help' | 'version'
  config: Config
}

/** Where the configuration is looked for when no flag says otherwise. */
export const defaultConfigPath = '/etc/macfleet/macfleetd.yaml'

/**
 * Reads the command line and the configuration file; flags win over the file.
 * @throws badRequest naming the flag, the file or the setting that is wrong
 */
export function readInvocation(commandLine: readonly string[]): Invocation {
  const values = parseFlags(commandLine)
  const path = values.config ?? defaultConfigPath
  const settings = readSettings(path, values.config !== undefined)
  const named: [keyof Settings, string | undefined][] = [
    ['dataDir', values['data-dir']],
    ['runDir', values['run-dir']],
    ['socket', values.socket],
    ['hostName', values['host-name']],
    ['accelerator', values.accelerator],
    ['logLevel', values['log-level']],
    ['guardian', values.guardian],
  ]
  for (const [name, value] of named) if (value !== undefined) settings[name] = value
  const config = completeConfig(settings, path)
  if (values.help) return { action: 'help', config }
  if (values.version) return { action: 'version', config }
  if (values.adopt) return { action: 'adopt', config }
  return { action: values['repair-store'] ? 'repair-store' : 'serve', config }
}

function parseFlags(commandLine: readonly string[]) {
  try {
    return parseArgs({ args: [...commandLine], options: flags, allowPositionals: false }).values
  } catch (error) {
    throw failure('badRequest', { detail: messageOf(error) })
  }
}

function readSettings(path: string, mustExist: boolean): Record<string, unknown> {
  try {
    const parsed: unknown = parseYaml(readFileSync(path, 'utf8')) ?? {}
    if (typeof parsed === 'object' && parsed !== null && !Array.isArray(parsed))
      return { ...parsed }
    throw new Error('must hold settings, one `name: value` a line')
  } catch (error) {
    if (!mustExist && isErrno(error, 'ENOENT')) return {}
    throw failure('badRequest', { detail: `configuration ${path}: ${messageOf(error)}` })
  }
}

/** Checks settings, fills in the defaults and makes paths absolute. */
export function completeConfig(settings: Record<string, unknown>, origin = 'settings'): Config {
  const causes = findCauses(configSchema, settings)
  if (causes.length > 0) {
    const detail = causes.map(cause => `${cause.field}: ${cause.message}`).join('; ')
    throw failure('badRequest', { detail: `configuration ${origin}: ${detail}` }, { causes })
  }
  const complete = Value.Default(configSchema, structuredClone(settings)) as Settings
  const runDir = resolve(complete.runDir)
  return {
    ...complete,
    runDir,
    dataDir: resolve(complete.dataDir),
    hostName: complete.hostName ?? hostname().toLowerCase(),
    socket: resolve(complete.socket ?? `${runDir}/macfleet.sock`),
  }
}

/** The text of `macfleetd --help`. */
export const usage = `macfleetd: the macfleet daemon

  macfleetd [--config FILE] [--data-dir DIR] [--run-dir DIR] [--socket PATH]
            [--host-name NAME] [--accelerator auto|kvm|tcg]
            [--log-level debug|info|warn|error|silent] [--guardian own|systemd]
  macfleetd --repair-store     mends a damaged store, after copying it aside
  macfleetd --adopt            takes over a data folder that was made on another machine,
                               which must never run it again
  macfleetd guardian ...       the guardian; started by the daemon or by systemd

Settings are read from ${defaultConfigPath} when it is there; flags win.
`
