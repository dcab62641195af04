import { readFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { failure, messageOf } from '../../base/errors.ts'
import { isErrno, makeFolder, writeFileAtomic } from '../../base/files.ts'
import type { GlobalOptions } from './invocation.ts'
import { isRecord } from './untyped.ts'

/** A daemon to talk to, by a name of the user's. */
export interface Context {
  name: string
  socket: string
  namespace?: string
}

/** What `config.yaml` in the settings folder says. */
export interface Settings {
  /** The context in use. */
  current?: string
  contexts: Context[]
}

/** Where the commands go. */
export interface Endpoint {
  socket: string
  namespace: string
  /** The context that said so, if one did. */
  context?: string
}

type Environment = Readonly<Record<string, string | undefined>>

/** Where a daemon listens when nobody says otherwise. */
export const defaultSocket = '/run/macfleet/macfleet.sock'

const defaultNamespace = 'default'

/** The folder of the settings, the SSH key and the known hosts. */
export function settingsFolder(environment: Environment): string {
  const named = environment['MACFLEET_CONFIG_DIR']
  if (named !== undefined && named !== '') return resolve(named)
  return join(environment['HOME'] || '/root', '.config', 'macfleet')
}

const settingsPath = (folder: string): string => join(folder, 'config.yaml')

/**
 * Reads the settings; empty ones when there is no file.
 * @throws settingsInvalid
 */
export async function readSettings(folder: string): Promise<Settings> {
  const path = settingsPath(folder)
  let text: string
  try {
    text = await readFile(path, 'utf8')
  } catch (error) {
    if (isErrno(error, 'ENOENT') || isErrno(error, 'ENOTDIR')) return { contexts: [] }
    throw failure('settingsInvalid', { path, detail: messageOf(error) })
  }
  try {
    return checkSettings(await parseYaml(text))
  } catch (error) {
    throw failure('settingsInvalid', { path, detail: messageOf(error) }, { cause: error })
  }
}

/** We write JSON, which is YAML too and is read without loading a YAML parser; people may write YAML. */
async function parseYaml(text: string): Promise<unknown> {
  if (text.startsWith('{')) {
    try {
      return JSON.parse(text)
    } catch {
      // Flow style YAML begins with a brace too.
    }
  }
  const { parse } = await import('yaml')
  return parse(text)
}

function checkSettings(value: unknown): Settings {
  if (value === null || value === undefined) return { contexts: [] }
  if (!isRecord(value)) throw new Error('it must be a map with `current` and `contexts`')
  const { current, contexts = [] } = value
  if (!Array.isArray(contexts)) throw new Error('`contexts` must be a list')
  if (current !== undefined && typeof current !== 'string') {
    throw new Error('`current` must be a name')
  }
  return { ...(current === undefined ? {} : { current }), contexts: contexts.map(checkContext) }
}

function checkContext(value: unknown, index: number): Context {
  const { name, socket, namespace } = isRecord(value) ? value : {}
  if (typeof name !== 'string' || typeof socket !== 'string') {
    throw new Error(`contexts[${index}] must have a name and a socket`)
  }
  if (namespace !== undefined && typeof namespace !== 'string') {
    throw new Error(`contexts[${index}].namespace must be a name`)
  }
  return { name, socket, ...(namespace === undefined ? {} : { namespace }) }
}

/** Writes the settings, readable by their owner alone. */
export async function writeSettings(folder: string, settings: Settings): Promise<void> {
  makeFolder(folder)
  await writeFileAtomic(settingsPath(folder), `${JSON.stringify(settings, null, 2)}\n`, 0o600)
}

/** The settings with `context` in place of the one of its name. */
export function withContext(settings: Settings, context: Context): Settings {
  const others = settings.contexts.filter(other => other.name !== context.name)
  return { ...settings, contexts: [...others, context] }
}

/**
 * Which daemon is meant, by falling weight: `--socket`, `--context`, MACFLEET_SOCKET, the current
 * context, the default.
 * @throws contextNotFound
 */
export function resolveEndpoint(
  options: GlobalOptions,
  environment: Environment,
  settings: Settings,
): Endpoint {
  const said = environment['MACFLEET_SOCKET']
  const direct = options.socket ?? (options.context === undefined ? said || undefined : undefined)
  if (direct !== undefined) {
    return { socket: resolve(direct), namespace: options.namespace ?? defaultNamespace }
  }
  const name = options.context ?? settings.current
  if (name === undefined) {
    return { socket: defaultSocket, namespace: options.namespace ?? defaultNamespace }
  }
  const context = settings.contexts.find(candidate => candidate.name === name)
  if (context === undefined) throw failure('contextNotFound', { name })
  const namespace = options.namespace ?? context.namespace ?? defaultNamespace
  return { socket: context.socket, namespace, context: name }
}
