import { failure } from '../../base/errors.ts'
import type { Resource } from '../../resources/kind.ts'
import type { Invocation, OutputStream } from './invocation.ts'
import { kindOfObject, qualifiedName } from './kinds.ts'

/** What `-o` takes. */
export const outputFormats = ['table', 'wide', 'json', 'yaml', 'name'] as const
/** How objects are printed. */
export type OutputFormat = (typeof outputFormats)[number]

/** The format that a word names. Throws usageWrong. */
export function outputFormat(word: string): OutputFormat {
  const format = outputFormats.find(candidate => candidate === word)
  if (format !== undefined) return format
  const detail = `-o takes ${outputFormats.join(', ')}, not ${word}`
  throw failure('usageWrong', { detail, command: 'macfleet get' })
}

/** Writes a text and waits while whoever reads is behind, so that nothing piles up in memory. */
export async function write(stream: OutputStream, text: string | Uint8Array): Promise<void> {
  if (stream.write(text) || stream.destroyed) return
  await new Promise<void>(resolve => {
    const settle = () => {
      stream.off('drain', settle)
      stream.off('close', settle)
      stream.off('error', settle)
      resolve()
    }
    stream.on('drain', settle)
    stream.on('close', settle)
    stream.on('error', settle)
  })
}

/** Writes lines to standard output. */
export function print(invocation: Invocation, ...lines: readonly string[]): Promise<void> {
  return write(invocation.stdout, lines.map(line => `${line}\n`).join(''))
}

/** Writes lines to standard error, for what is not the command's result. */
export function note(invocation: Invocation, ...lines: readonly string[]): Promise<void> {
  return write(invocation.stderr, lines.map(line => `${line}\n`).join(''))
}

/** Several objects as one, as `kubectl get -o json` prints them. */
export function listObject(items: readonly Resource[]): object {
  return { apiVersion: 'v1', kind: 'List', metadata: { resourceVersion: '' }, items }
}

/** An object, or a list of them, in a format that programs read. */
export async function formatValue(value: unknown, format: 'json' | 'yaml'): Promise<string> {
  if (format === 'json') return JSON.stringify(value, null, 2)
  const { stringify } = await import('yaml')
  // Long lines are folded by default, which makes a key or a message hard to search for.
  return stringify(value, { lineWidth: 0 }).trimEnd()
}

/** `virtualmachine.macfleet.dev/web`. */
export function nameOf(object: Resource): string {
  const kind = kindOfObject(object.apiVersion, object.kind)
  const { name } = object.metadata
  return kind === undefined ? `${object.kind.toLowerCase()}/${name}` : qualifiedName(kind, name)
}
