import { execFileSync } from 'node:child_process'
import {
  appendFileSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { systemClock } from '../../base/clock.ts'
import { defaultLimits, type Limits } from '../../base/limits.ts'
import { silentLog } from '../../base/log.ts'
import { tarOf } from '../../test/support/containers.ts'
import { digestOfBytes, noise, openTestStore } from '../../test/support/images.ts'
import {
  type LayoutManifest,
  makeLayout,
  writeContainer,
  writeOwnImage,
} from '../../test/support/layouts.ts'
import { temporaryFolder } from '../../test/support/temporary-folder.ts'
import { decodeLayerIndex } from '../layer-index.ts'
import type { ImageSource } from '../sources/source.ts'
import { openWrappedDisk } from '../wrapped/wrapped-disk.ts'
import { type Library, type LibraryOwnImage, openLibrary } from './library.ts'
import { readLibraryName } from './library-name.ts'
import { createLibrarySource } from './library-source.ts'

const MiB = 1024 * 1024
const disk = noise(5 * MiB)
const { signal } = new AbortController()
const amd64 = { arch: 'x86_64' } as const
const arm64 = { arch: 'aarch64' } as const

const tagged = (manifest: LayoutManifest, tag: string): LayoutManifest => ({
  ...manifest,
  annotations: { 'org.opencontainers.image.ref.name': tag },
})

function open(folder: string, limits: Partial<Limits> = {}): Library {
  const components = { clock: systemClock, limits: { ...defaultLimits, ...limits } }
  const library = openLibrary(folder, components)
  onTestFinished(() => library.close())
  return library
}

const sources = new WeakMap<LibraryOwnImage, ImageSource>()

/** The image as a source, opened once. */
function sourceOf(image: LibraryOwnImage): ImageSource {
  const components = { clock: systemClock, limits: defaultLimits, log: silentLog }
  const known = sources.get(image)
  if (known !== undefined) return known
  const opened = createLibrarySource(image.source, components)
  onTestFinished(() => opened.close())
  sources.set(image, opened)
  return opened
}

async function readAll(stream: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const parts: Uint8Array[] = []
  for await (const part of stream) parts.push(part)
  return Buffer.concat(parts)
}

/** The numbers of all its chunks. */
function allOf({ layers: [encoded = Buffer.alloc(0)] }: LibraryOwnImage): number[] {
  return decodeLayerIndex(encoded, defaultLimits).chunks.map((_, number) => number)
}

/** Every chunk that the source delivers, compared with its digest. */
async function fetchGood(image: LibraryOwnImage): Promise<number[]> {
  const [encoded = Buffer.alloc(0)] = image.layers
  const index = decodeLayerIndex(encoded, defaultLimits)
  const layer = await sourceOf(image).openLayer(digestOfBytes(encoded), index, signal)
  expect(await layer.held(signal)).toBeUndefined()
  const good: number[] = []
  const all = index.chunks.map((_, number) => number)
  for await (const { number, bytes } of layer.fetch(all, signal)) {
    if (digestOfBytes(bytes) === index.chunks[number]?.digest) good.push(number)
  }
  return good.sort((one, other) => one - other)
}

const own = async (library: Library, name: string, wanted: Parameters<Library['resolve']>[1]) => {
  const found = await library.resolve(name, wanted, signal)
  if (found.kind !== 'image') throw new Error(`${name} is of kind ${found.kind}`)
  return found
}

test('an image of a layout is found and read like one of a registry', async () => {
  const folder = temporaryFolder()
  const layout = makeLayout(join(folder, 'team/base'))
  const { manifest, digest, packs } = writeOwnImage(layout, disk)
  layout.writeIndex([tagged(manifest, 'example.test/team/base:12')])
  const library = open(folder)
  for (const name of ['team/base', 'library:team/base:12', `team/base@${manifest.digest}`]) {
    const found = await own(library, name, amd64)
    expect(found).toMatchObject({ digest, reference: `library:team/base@${manifest.digest}` })
    expect(await fetchGood(found)).toEqual(allOf(found))
    const config = await readAll(sourceOf(found).readBlob(digest, 1 * MiB, signal))
    expect(digestOfBytes(config)).toBe(digest)
    await expect(readAll(sourceOf(found).readBlob(digest, 10, signal))).rejects.toMatchObject({
      code: 'sourceFailed',
    })
  }
  await expect(library.resolve('team/base:13', amd64, signal)).rejects.toThrow('only 12')
  await expect(library.resolve('team/base', arm64, signal)).rejects.toMatchObject({
    code: 'registryArchMissing',
  })

  // What is damaged or lost is left out, and the rest comes.
  const found = await own(library, 'team/base', amd64)
  const path = layout.blobPath(packs[0]?.digest ?? '')
  const bytes = readFileSync(path)
  bytes.fill(0, 0, 100)
  writeFileSync(path, bytes)
  const all = allOf(found)
  expect(await fetchGood(found)).toEqual(all.slice(1))
  rmSync(path)
  const lacking = await own(library, 'team/base', amd64)
  expect(await fetchGood(lacking)).toEqual(all.slice(Math.ceil(all.length / 2)))
  const check = await library.check('team/base', () => {}, signal)
  expect(check.wrong).toEqual([{ blob: packs[0]?.digest, detail: 'it is missing' }])
  writeFileSync(layout.blobPath(manifest.digest), '{}')
  await expect(library.resolve('team/base', amd64, signal)).rejects.toThrow('not what its name')
})

test('of several processors the right one is chosen, however the layout says it', async () => {
  const folder = temporaryFolder()
  const layout = makeLayout(join(folder, 'base'))
  const platform = (architecture: string) => ({ platform: { architecture, os: 'linux' } })
  const one = writeOwnImage(layout, disk)
  const two = writeOwnImage(layout, noise(2 * MiB, 8), 'aarch64')
  const both = [
    { ...one.manifest, ...platform('amd64') },
    { ...two.manifest, ...platform('arm64') },
  ]
  const type = 'application/vnd.oci.image.index.v1+json'
  const index = { schemaVersion: 2, mediaType: type, manifests: both }
  const nested = layout.writeDocument(Buffer.from(JSON.stringify(index)), type)
  const library = open(folder)
  for (const manifests of [both.map(each => tagged(each, '1')), [tagged(nested, '1')]]) {
    layout.writeIndex(manifests)
    expect(await own(library, 'base', amd64)).toMatchObject({ digest: one.digest })
    expect(await own(library, 'base:1', arm64)).toMatchObject({ digest: two.digest })
    expect((await library.check('base', () => {}, signal)).wrong).toEqual([])
  }
})

test('files and wrapped disks are streams for an import', async () => {
  const folder = temporaryFolder()
  writeFileSync(join(folder, 'plain.img'), disk)
  const layout = makeLayout(join(folder, 'wrapped'))
  layout.writeIndex([writeContainer(layout, await tarOf({ name: 'disk/vm.raw', bytes: disk }))])
  const library = open(folder)
  const store = await openTestStore(join(temporaryFolder(), 'images'))
  const plain = await library.resolve('plain', amd64, signal)
  if (plain.kind !== 'disk') throw new Error(plain.kind)
  expect(plain).toMatchObject({ reference: 'library:plain.img', sizeBytes: disk.length })
  const first = await store.importImage(plain, { format: plain.format })
  const wrapped = await library.resolve('wrapped', amd64, signal)
  if (wrapped.kind !== 'container') throw new Error(wrapped.kind)
  const how = { bounds: defaultLimits, signal }
  const found = await openWrappedDisk(wrapped.image, wrapped.wrapped, how)
  expect(await store.importImage(found, { format: found.format })).toMatchObject({
    digest: first.digest,
  })
  writeFileSync(join(folder, 'plain.raw'), disk)
  await expect(library.resolve('plain', amd64, signal)).rejects.toThrow('say which')
  const changed = await library.resolve('plain.raw', amd64, signal)
  if (changed.kind !== 'disk') throw new Error(changed.kind)
  const reading = changed.stream[Symbol.asyncIterator]()
  await reading.next()
  appendFileSync(join(folder, 'plain.raw'), 'more')
  const rest = async () => {
    while (!(await reading.next()).done);
  }
  await expect(rest()).rejects.toMatchObject({ code: 'contentDiffers' })
})

test('nothing leads out of the library, and nothing but files is opened', async () => {
  const folder = temporaryFolder()
  const library = join(folder, 'library')
  mkdirSync(library)
  writeFileSync(join(folder, 'secret.raw'), disk)
  makeLayout(join(folder, 'outside')).writeIndex([])
  symlinkSync('../secret.raw', join(library, 'link.raw'))
  symlinkSync('../outside', join(library, 'folder'))
  symlinkSync('..', join(library, 'up'))
  execFileSync('mkfifo', [join(library, 'pipe.raw')])
  mkdirSync(join(library, 'folder.raw'))
  const opened = open(library)
  const names = ['link.raw', 'link', 'folder', 'up/secret.raw', 'up/library/link.raw']
  for (const name of [...names, 'pipe.raw', 'folder.raw', 'nothing', 'nothing/at/all']) {
    await expect(opened.resolve(name, amd64, signal), name).rejects.toMatchObject({
      code: 'notFound',
    })
  }
  expect(await opened.list(signal)).toEqual({ entries: [], isWhole: true })
  const tricks = ['..', '../secret.raw', 'a/../../secret', '/etc/passwd', './a', '', 'a//b', '.x']
  for (const name of [...tricks, 'a\0b', 'a\nb', 'a:b:c', 'a@sha256:00', 'a/'.repeat(9)]) {
    expect(() => readLibraryName(name, defaultLimits.libraryDepth), name).toThrow()
    await expect(opened.resolve(name, amd64, signal)).rejects.toMatchObject({ code: 'badRequest' })
  }
  // A blob that is a link is not there; a path in an index is never followed.
  const layout = makeLayout(join(library, 'base'))
  const { manifest } = writeOwnImage(layout, disk)
  layout.writeIndex([manifest])
  const blob = layout.blobPath(manifest.digest)
  renameSync(blob, join(folder, 'moved'))
  symlinkSync(join(folder, 'moved'), blob)
  await expect(opened.resolve('base', amd64, signal)).rejects.toMatchObject({ code: 'notFound' })
})

test('a library is listed, as far as its bounds go', async () => {
  const folder = temporaryFolder()
  const layout = makeLayout(join(folder, 'team/base'))
  const { manifest } = writeOwnImage(layout, disk)
  const container = writeContainer(layout, await tarOf({ name: 'disk/vm.raw', bytes: disk }))
  const gone = { ...manifest, digest: digestOfBytes(disk) }
  layout.writeIndex([tagged(manifest, '1'), tagged(container, '2'), tagged(gone, '3')])
  mkdirSync(join(folder, 'broken'))
  writeFileSync(join(folder, 'broken/oci-layout'), '{}')
  writeFileSync(join(folder, 'broken/index.json'), '{"manifests":[{"digest":"../../x"}]}')
  writeFileSync(join(folder, 'team/a.qcow2'), disk)
  writeFileSync(join(folder, 'team/notes.txt'), 'x')
  const { entries, isWhole } = await open(folder).list(signal)
  expect(isWhole).toBe(true)
  expect(entries).toEqual([
    expect.objectContaining({ name: 'broken', kind: 'unreadable' }),
    { name: 'team/a.qcow2', kind: 'disk', sizeBytes: disk.length },
    expect.objectContaining({ name: 'team/base:1', kind: 'image', architectures: ['amd64'] }),
    expect.objectContaining({ name: 'team/base:2', kind: 'container', architectures: ['amd64'] }),
    expect.objectContaining({ name: 'team/base:3', kind: 'unreadable' }),
  ])
  for (let at = 0; at < 50; at++) writeFileSync(join(folder, `${at}.raw`), 'x')
  const few = await open(folder, { libraryEntries: 20 }).list(signal)
  expect(few.isWhole).toBe(false)
  expect(few.entries.length).toBeLessThanOrEqual(20)
})

/** The processes that read a library, by the folder that they were started with. */
function readersOf(folder: string): number[] {
  return readdirSync('/proc').flatMap(name => {
    if (!/^\d+$/.test(name)) return []
    try {
      const command = readFileSync(`/proc/${name}/cmdline`, 'utf8')
      const isReader = command.includes('library-process.ts') && command.includes(`"${folder}"`)
      return isReader ? [Number(name)] : []
    } catch {
      return []
    }
  })
}

test('a file system that hangs is given up, and asked again when it is back', async () => {
  const folder = temporaryFolder()
  writeFileSync(join(folder, 'a.raw'), disk)
  const library = open(folder, { libraryCallMs: 2000 })
  await library.resolve('a.raw', amd64, signal)
  const [pid = 0, ...others] = readersOf(folder)
  expect(others).toEqual([])
  process.kill(pid, 'SIGSTOP')
  await expect(library.resolve('a.raw', amd64, signal)).rejects.toMatchObject({
    code: 'sourceFailed',
    message: expect.stringContaining('does not answer within 2000 ms'),
  })
  await expect.poll(() => readersOf(folder), { timeout: 10_000 }).toEqual([])
  await expect
    .poll(() => library.resolve('a.raw', amd64, signal).catch(() => undefined), { timeout: 15_000 })
    .toMatchObject({ kind: 'disk' })
  const ended = new AbortController()
  const waiting = library.resolve('a.raw', amd64, ended.signal)
  ended.abort(new Error('enough'))
  await expect(waiting).rejects.toThrow('enough')
  library.close()
  await expect.poll(() => readersOf(folder), { timeout: 10_000 }).toEqual([])
})
