import type { Readable } from 'node:stream'
import { type Clock, withTimeout } from '../../base/clock.ts'
import { failure } from '../../base/errors.ts'
import type { Limits } from '../../base/limits.ts'
import { parseJsonText } from './json-text.ts'
import { unsupportedType } from './status.ts'

/** What reading a body needs. */
export interface BodyComponents {
  clock: Clock
  limits: Pick<Limits, 'requestBodyBytes' | 'requestBodyMs'>
}

/** A request's body and what it says of itself; one without a body is at its end at once. */
export type IncomingBody = Readable & {
  readonly headers: Readonly<Record<string, string | string[] | undefined>>
}

/** YAML aliases that are followed; each may stand for much. */
const mostAliases = 32

/** The media type of a header, without its parameters. */
export function mediaType(header: string | string[] | undefined): string {
  const text = Array.isArray(header) ? header[0] : header
  return (text ?? '').split(';')[0]?.trim().toLowerCase() ?? ''
}

/**
 * Reads a body to its end.
 * @throws tooLarge, timeout when it takes too long, unsupportedMediaType when it is compressed,
 *   badRequest when it is not UTF-8
 */
export async function readText(body: IncomingBody, components: BodyComponents): Promise<string> {
  const encoding = mediaType(body.headers['content-encoding'])
  if (encoding !== '' && encoding !== 'identity') throw unsupportedType(`${encoding} (compressed)`)
  const { clock, limits } = components
  const timeoutMs = limits.requestBodyMs
  const reading = readAll(body, limits.requestBodyBytes)
  const bytes = await withTimeout(clock, timeoutMs, reading, () =>
    failure('timeout', { what: 'receiving the body', timeoutMs }),
  )
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch {
    throw failure('badRequest', { detail: 'the body is not UTF-8' })
  }
}

async function readAll(stream: Readable, limitBytes: number): Promise<Buffer> {
  const chunks: Buffer[] = []
  let sizeBytes = 0
  // Not destroyed when it is too long: the refusal goes out on the same connection.
  for await (const chunk of stream.iterator({ destroyOnReturn: false })) {
    sizeBytes += chunk.length
    if (sizeBytes > limitBytes) throw failure('tooLarge', { limitBytes })
    chunks.push(chunk)
  }
  return Buffer.concat(chunks)
}

/**
 * Reads a body that holds one JSON value, or its YAML; undefined when it is empty.
 * @throws besides what readText() throws: unsupportedMediaType, badRequest
 */
export async function readValue(body: IncomingBody, components: BodyComponents): Promise<unknown> {
  const type = mediaType(body.headers['content-type'])
  const isYaml = type === 'application/yaml'
  // Without a type it is JSON, as in Kubernetes.
  if (!isYaml && type !== 'application/json' && type !== '') {
    throw unsupportedType(type)
  }
  const text = await readText(body, components)
  if (text.trim() === '') return undefined
  return parseJsonText(isYaml ? await jsonOfYaml(text, components) : text)
}

/** YAML 1.2 as the JSON text that it stands for; never larger than a JSON body may be. */
async function jsonOfYaml(text: string, { limits }: BodyComponents): Promise<string> {
  // Loaded when the first YAML comes: most daemons never see any, and it takes some megabytes.
  const yaml = await import('yaml')
  let json: string | undefined
  try {
    const value: unknown = yaml.parse(text, {
      maxAliasCount: mostAliases,
      uniqueKeys: true,
      prettyErrors: false,
      logLevel: 'error',
    })
    json = JSON.stringify(value)
  } catch (error) {
    const detail = error instanceof Error ? error.message.slice(0, 200) : ''
    throw failure('badRequest', { detail: `the body is no YAML that is read here: ${detail}` })
  }
  const limitBytes = limits.requestBodyBytes
  if (json !== undefined && json.length > limitBytes) throw failure('tooLarge', { limitBytes })
  return json ?? ''
}
