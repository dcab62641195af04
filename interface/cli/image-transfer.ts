import { failure } from '../../base/errors.ts'
import type { Image } from '../../resources/image.ts'
import type { Resource } from '../../resources/kind.ts'
import type { Connection } from './command-module.ts'
import type { Invocation } from './invocation.ts'
import { readJsonLines } from './json-lines.ts'
import { imageName } from './kinds.ts'
import { nameStem } from './machine-spec.ts'
import { createProgress } from './progress.ts'
import { createObject, getObject, groupVersion, objectPath } from './resource-client.ts'
import { StatusError, statusObjectError } from './status-error.ts'
import { isRecord, memberAt } from './untyped.ts'
import { type Verdict, waitForObject } from './wait.ts'

/** What is pulled. */
export interface PullInit {
  /** A registry reference, `library:NAME`, or a URL. */
  from: string
  name: string | undefined
  /** Fields of the image's spec. */
  spec: Record<string, unknown>
  pullSecret?: string
  /** Of the file at a URL. */
  digest?: string
}

/** A name for an image, from its reference: `host/team/debian:12` becomes `debian-12`. */
export function imageNameFrom(from: string): string {
  const path = URL.canParse(from) && /^https?:/.test(from) ? new URL(from).pathname : from
  const [named = ''] = path.replace(/^library:/, '').split('@')
  const last = named.split('/').at(-1) ?? ''
  return nameStem(last.replace(/\.(raw|img|qcow2)$/i, '').replace(/:latest$/, ''))
}

/** The source that a word on the command line names. */
export function sourceOf({ from, pullSecret, digest }: PullInit): Record<string, unknown> {
  const more = { ...(pullSecret && { pullSecret }), ...(digest && { digest }) }
  if (from.startsWith('library:')) return { library: from.slice('library:'.length), ...more }
  return /^https?:\/\//.test(from) ? { url: from, ...more } : { registry: from, ...more }
}

/**
 * Creates an image with a source; one of that name with the same source is taken as it is.
 * @throws what the daemon refuses
 */
export async function createSourced(init: PullInit, connection: Connection): Promise<Resource> {
  const { client, namespace } = connection
  const name = init.name ?? imageNameFrom(init.from)
  const source = sourceOf(init)
  const type = { apiVersion: groupVersion(imageName), kind: imageName.kind }
  const spec = { ...init.spec, source }
  try {
    return await createObject(client, imageName, namespace, { ...type, metadata: { name }, spec })
  } catch (thrown) {
    if (!(thrown instanceof StatusError) || thrown.reason !== 'AlreadyExists') throw thrown
    const found = await getObject(client, imageName, namespace, name)
    const told = memberAt(found, 'spec.source')
    if (JSON.stringify(sorted(told)) === JSON.stringify(sorted(source))) return found
    throw thrown
  }
}

function sorted(value: unknown): unknown {
  return isRecord(value) ? Object.entries(value).sort() : value
}

/** Waits until as many hosts hold an image as its spec says, and shows how far they are. */
export async function awaitCopies(
  name: string,
  timeoutMs: number,
  { client, namespace }: Connection,
  { clock, signal, stderr }: Invocation,
): Promise<Resource | undefined> {
  const progress = createProgress({ stream: stderr, clock })
  const judge = (object: Resource | undefined): Verdict => {
    if (object === undefined) return { is: 'failed', state: 'it was deleted' }
    const { status } = object as Image
    if (status?.phase === 'Failed') return { is: 'failed', state: reasonOf(object) }
    const wanted = status?.copyHosts ?? []
    const held = new Set(status?.hosts ?? [])
    if (status?.phase === 'Ready' && wanted.length > 0 && wanted.every(host => held.has(host))) {
      return { is: 'reached' }
    }
    const filling = status?.filling ?? []
    const sum = (of: 'doneBytes' | 'totalBytes') => filling.reduce((all, one) => all + one[of], 0)
    const taking = status?.progress
    if (taking !== undefined) progress.update(taking.stage, taking.doneBytes, taking.totalBytes)
    else if (filling.length > 0) progress.update('Pulling', sum('doneBytes'), sum('totalBytes'))
    const stalled = filling.find(each => each.stalled !== undefined)?.stalled
    return { is: 'waiting', state: stalled ?? reasonOf(object) }
  }
  try {
    return await waitForObject(
      { kind: imageName, namespace, name, wanted: 'held by its hosts', timeoutMs, judge },
      { client, clock, signal },
    )
  } finally {
    progress.clear()
  }
}

function reasonOf(image: Resource): string {
  const { status } = image as Image
  const ready = status?.conditions?.find(({ type }) => type === 'Ready')
  return ready?.message ?? status?.phase ?? 'nobody has looked it up yet'
}

/** What was pushed. */
export interface Pushed {
  reference: string
  digest: string
  sentBytes: number
  chunks: number
}

/** Sends an image to a registry from the host that is asked. @throws what was refused */
export async function pushImage(
  name: string,
  request: { reference: string; pushSecret?: string },
  { client, namespace }: Connection,
  { clock, signal, stderr }: Invocation,
): Promise<Pushed> {
  const progress = createProgress({ stream: stderr, clock })
  const path = `${objectPath(imageName, namespace, name)}/push`
  try {
    const answer = await client.stream('POST', path, { body: request, signal })
    for await (const line of readJsonLines(answer, lineBytes, `POST ${path}`)) {
      if (!isRecord(line)) continue
      if (line['kind'] === 'Status') throw statusObjectError(line, 500)
      if (isRecord(line['pushed'])) return line['pushed'] as unknown as Pushed
      const at = line['progress'] as { stage: string; doneBytes: number; totalBytes: number }
      progress.update(at.stage, at.doneBytes, at.totalBytes)
    }
  } finally {
    progress.clear()
  }
  throw failure('answerInvalid', { request: `POST ${path}`, detail: 'it ends before its result' })
}

const lineBytes = 65_536
