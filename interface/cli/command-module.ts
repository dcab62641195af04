import type { Command } from 'commander'
import { defaultLimits } from '../../base/limits.ts'
import { type ApiClient, createApiClient } from './api-client.ts'
import { readSettings, resolveEndpoint, settingsFolder } from './context.ts'
import type { GlobalOptions, Invocation } from './invocation.ts'
import { printable } from './text.ts'

/** What a file in commands/ exports: `define` adds arguments, options, help and the action. */
export interface CommandModule {
  define(command: Command, invocation: Invocation): void
}

/** The daemon that a command talks to. */
export interface Connection {
  client: ApiClient
  /** The namespace that is meant when the command line names none. */
  namespace: string
}

/** Finds out which daemon is meant. Nothing is sent yet. */
export async function connect(invocation: Invocation, command: Command): Promise<Connection> {
  const options = command.optsWithGlobals<GlobalOptions>()
  const { environment, clock, signal, stderr } = invocation
  const onWarning = (sentence: string): void =>
    void stderr.write(`warning: ${printable(sentence)}\n`)
  const settings = await readSettings(settingsFolder(environment))
  const { socket, namespace } = resolveEndpoint(options, environment, settings)
  const client = createApiClient({ socket, limits: defaultLimits }, { clock, signal, onWarning })
  return { client, namespace }
}

/**
 * A client of the same daemon that Ctrl-C does not end, to take back what a command had begun. Its
 * requests end by their own timeout.
 */
export function cleanupClient(invocation: Invocation, { client }: Connection): ApiClient {
  const { clock } = invocation
  const signal = new AbortController().signal
  return createApiClient({ socket: client.socket, limits: defaultLimits }, { clock, signal })
}

/** Options and values that a command was given, typed by the command that declared them. */
export function optionsOf<Options extends object>(command: Command): Options {
  return command.optsWithGlobals<Options & Record<string, unknown>>()
}

/** Appends each use of a repeatable option to those before it. */
export function collect(value: string, before: readonly string[] | undefined): string[] {
  return [...(before ?? []), value]
}
