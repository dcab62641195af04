import { closeSync, constants, fstatSync, opendirSync, openSync, readSync } from 'node:fs'
import { assert } from '../../base/errors.ts'
import type {
  FileFacts,
  FolderEntry,
  LibraryAnswer,
  LibraryRequest,
  LibraryTask,
} from './library-messages.ts'

// A process of its own: a call to a file server that is gone waits for as long as that is gone, and
// only a process can be ended meanwhile. The daemon's own threads never touch the library.

const { O_DIRECTORY, O_NOFOLLOW, O_NONBLOCK, O_RDONLY } = constants
const { folder }: LibraryTask = JSON.parse(process.argv[2] ?? '{}')

/** Files opened lately, by path: packs are read range by range. */
const opened = new Map<string, number>()
const openedMost = 16

/**
 * Opens what lies below the library's folder, name by name and each without following a link: so
 * nothing in it leads out of it, even if it is changed meanwhile. (Node has no openat; the names
 * that /proc gives to open folders serve the same.)
 */
function openBelow(path: readonly string[], flags: number): number {
  let at = openSync(folder, O_RDONLY | O_DIRECTORY)
  for (const [depth, name] of path.entries()) {
    assert(name !== '' && name !== '.' && name !== '..' && !/[/\0]/.test(name), 'a plain name')
    const isLast = depth === path.length - 1
    try {
      const how = O_RDONLY | O_NOFOLLOW | O_NONBLOCK | (isLast ? flags : O_DIRECTORY)
      const next = openSync(`/proc/self/fd/${at}/${name}`, how)
      closeSync(at)
      at = next
    } catch (error) {
      closeSync(at)
      throw error
    }
  }
  return at
}

function openFile(path: readonly string[]): number {
  const file = openBelow(path, 0)
  if (fstatSync(file).isFile()) return file
  closeSync(file)
  throw Object.assign(new Error('no regular file'), { code: 'NOT_REGULAR' })
}

/** Does something with a file; one that its server no longer knows is opened once more. */
function withFile<Result>(path: readonly string[], work: (file: number) => Result): Result {
  const key = path.join('/')
  const known = opened.get(key)
  const file = known ?? openFile(path)
  opened.delete(key)
  opened.set(key, file)
  const [oldest] = opened.keys()
  if (opened.size > openedMost && oldest !== undefined) forget(oldest)
  try {
    return work(file)
  } catch (error) {
    forget(key)
    const isStale = known !== undefined && codeOf(error) === 'ESTALE'
    if (isStale) return withFile(path, work)
    throw error
  }
}

function forget(key: string): void {
  const file = opened.get(key)
  opened.delete(key)
  if (file !== undefined) closeSync(file)
}

function list(path: readonly string[], limit: number): FolderEntry[] {
  const handle = openBelow(path, O_DIRECTORY)
  try {
    const entries: FolderEntry[] = []
    const found = opendirSync(`/proc/self/fd/${handle}/`)
    try {
      for (let entry = found.readSync(); entry !== null; entry = found.readSync()) {
        if (entries.length > limit) break
        const type = entry.isFile() ? 'file' : entry.isDirectory() ? 'folder' : 'other'
        entries.push({ name: entry.name, type })
      }
    } finally {
      found.closeSync()
    }
    return entries
  } finally {
    closeSync(handle)
  }
}

/** As the name leads to it now, whatever was opened before. */
function look(path: readonly string[]): FileFacts {
  forget(path.join('/'))
  return withFile(path, file => {
    const { size, mtimeNs } = fstatSync(file, { bigint: true })
    return { sizeBytes: Number(size), changed: String(mtimeNs) }
  })
}

function read(path: readonly string[], offsetBytes: number, lengthBytes: number): Uint8Array {
  return withFile(path, file => {
    const bytes = new Uint8Array(lengthBytes)
    let length = 0
    while (length < lengthBytes) {
      const count = readSync(file, bytes, length, lengthBytes - length, offsetBytes + length)
      if (count === 0) break
      length += count
    }
    return bytes.subarray(0, length)
  })
}

function answer(request: LibraryRequest): LibraryAnswer {
  const { id, path } = request
  try {
    if (request.type === 'look') return { id, type: 'looked', facts: look(path) }
    if (request.type === 'read') {
      return { id, type: 'read', bytes: read(path, request.offsetBytes, request.lengthBytes) }
    }
    const entries = list(path, request.limit)
    const isWhole = entries.length <= request.limit
    return { id, type: 'listed', entries: entries.slice(0, request.limit), isWhole }
  } catch (error) {
    return { id, type: 'failed', code: codeOf(error) }
  }
}

function codeOf(error: unknown): string {
  return error instanceof Error && 'code' in error ? String(error.code) : 'UNKNOWN'
}

process.on('message', (request: LibraryRequest) => process.send?.(answer(request)))
process.on('disconnect', () => process.exit(0))
