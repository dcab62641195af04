import { type Dirent, statSync } from 'node:fs'
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { failure, messageOf } from '../../base/errors.ts'
import { defaultLimits } from '../../base/limits.ts'
import { nearest } from '../../resources/nearest.ts'
import type { InputStream } from './invocation.ts'
import { type KindName, kindNames, kindOfObject } from './kinds.ts'
import { isRecord, memberAt } from './untyped.ts'

/** One object as a file describes it. */
export interface Manifest {
  kind: KindName
  namespace: string
  name: string
  /** As written, with the namespace filled in. */
  object: Record<string, unknown>
  /** Where it stands, for messages: `fleet.yaml:12`. */
  source: string
}

/**
 * Reads every object of some files: YAML of several documents or JSON, a `List` is taken apart. A
 * folder means its .yaml, .yml and .json files, `-` standard input.
 * @param namespace of objects that name none
 * @throws fileUnreadable, manifestInvalid with file and line
 */
export async function readManifests(
  paths: readonly string[],
  namespace: string,
  stdin: InputStream,
): Promise<Manifest[]> {
  const manifests: Manifest[] = []
  for (const path of paths) {
    for (const file of await filesOf(path)) {
      const text = file === '-' ? await readStream(stdin) : await readText(file)
      const source = file === '-' ? 'standard input' : file
      manifests.push(...(await parseManifests(text, namespace, source)))
    }
  }
  if (manifests.length > 0) return manifests
  throw failure('manifestInvalid', {
    source: paths.join(', '),
    detail: 'there are no objects in it',
  })
}

async function filesOf(path: string): Promise<string[]> {
  if (path === '-') return ['-']
  let entries: Dirent[]
  try {
    if (!statSync(path).isDirectory()) return [path]
    entries = await readdir(path, { withFileTypes: true })
  } catch (error) {
    throw failure('fileUnreadable', { path, detail: messageOf(error) })
  }
  return entries
    .filter(entry => !entry.isDirectory() && /\.(ya?ml|json)$/.test(entry.name))
    .map(entry => join(path, entry.name))
    .sort()
}

async function readText(path: string): Promise<string> {
  try {
    const { size } = statSync(path)
    if (size > defaultLimits.manifestBytes) throw tooLarge()
    return await readFile(path, 'utf8')
  } catch (error) {
    throw failure('fileUnreadable', { path, detail: messageOf(error) })
  }
}

const tooLarge = () => new Error(`it has more than ${defaultLimits.manifestBytes} bytes`)

async function readStream(stream: InputStream): Promise<string> {
  const chunks: Buffer[] = []
  let sizeBytes = 0
  for await (const chunk of stream) {
    const bytes = Buffer.from(chunk)
    sizeBytes += bytes.length
    if (sizeBytes > defaultLimits.manifestBytes) {
      throw failure('fileUnreadable', { path: 'standard input', detail: tooLarge().message })
    }
    chunks.push(bytes)
  }
  return Buffer.concat(chunks).toString('utf8')
}

/** The objects in a text. `source` is its name in messages. */
export async function parseManifests(
  text: string,
  namespace: string,
  source: string,
): Promise<Manifest[]> {
  const { LineCounter, parseAllDocuments } = await import('yaml')
  const lineCounter = new LineCounter()
  const manifests: Manifest[] = []
  const documents = parseAllDocuments(text, { lineCounter })
  for (const document of Array.isArray(documents) ? documents : []) {
    const start = document.contents?.range?.[0] ?? document.range[0]
    const at = `${source}:${lineCounter.linePos(start).line}`
    const [problem] = document.errors
    if (problem !== undefined) {
      const line = problem.linePos?.[0].line
      const where = line === undefined ? at : `${source}:${line}`
      const detail = problem.message.split('\n')[0] ?? 'it is no YAML'
      throw failure('manifestInvalid', { source: where, detail })
    }
    manifests.push(...manifestsOf(document.toJS({ maxAliasCount: 100 }), namespace, at))
  }
  return manifests
}

function manifestsOf(value: unknown, namespace: string, source: string): Manifest[] {
  if (value === null || value === undefined) return []
  if (!isRecord(value)) throw failure('manifestInvalid', { source, detail: 'it is no object' })
  if (value['kind'] === 'List' && Array.isArray(value['items'])) {
    return value['items'].flatMap(item => manifestsOf(item, namespace, source))
  }
  const kind = kindOf(value, source)
  const name = memberAt(value, 'metadata.name')
  if (typeof name !== 'string' || name === '') {
    throw failure('manifestInvalid', { source, detail: `this ${kind.kind} has no metadata.name` })
  }
  const own = memberAt(value, 'metadata.namespace')
  const place = typeof own === 'string' && own !== '' ? own : namespace
  const metadata = isRecord(value['metadata']) ? value['metadata'] : {}
  const object = kind.namespaced ? { ...value, metadata: { ...metadata, namespace: place } } : value
  return [{ kind, namespace: place, name, object, source }]
}

function kindOf(value: Record<string, unknown>, source: string): KindName {
  const { apiVersion, kind } = value
  if (typeof apiVersion !== 'string' || typeof kind !== 'string') {
    throw failure('manifestInvalid', { source, detail: 'apiVersion and kind must say what it is' })
  }
  const found = kindOfObject(apiVersion, kind)
  if (found !== undefined) return found
  const meant = nearest(
    kind,
    kindNames.map(name => name.kind),
  )
  const hint = meant === undefined || meant === kind ? '' : ` (did you mean ${meant}?)`
  const detail = `there is no kind ${kind} in ${apiVersion}${hint}`
  throw failure('manifestInvalid', { source, detail })
}
