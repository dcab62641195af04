import { mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { systemClock } from '../../base/clock.ts'
import { defaultLimits } from '../../base/limits.ts'
import { silentLog } from '../../base/log.ts'
import { checkChunk } from '../../images/format/packs.ts'
import { decodeLayerIndex } from '../../images/layer-index.ts'
import { type Library, openLibrary } from '../../images/library/library.ts'
import { createLibrarySource } from '../../images/library/library-source.ts'
import { openWrappedDisk } from '../../images/wrapped/wrapped-disk.ts'
import { tarOf } from '../support/containers.ts'
import { digestOfBytes, noise, openTestStore } from '../support/images.ts'
import { makeLayout, writeContainer, writeOwnImage } from '../support/layouts.ts'
import { exportByNfs } from '../support/nfs.ts'
import { skopeo, startTestRegistry } from '../support/registry.ts'
import { temporaryFolder } from '../support/temporary-folder.ts'

const MiB = 1024 * 1024
const disk = noise(24 * MiB)
const { signal } = new AbortController()
const components = { clock: systemClock, limits: defaultLimits, log: silentLog }

/** The disk of an image of ours, put together from the chunks that the library delivers. */
async function readDisk(library: Library, name: string): Promise<Buffer> {
  const image = await library.resolve(name, { arch: 'x86_64' }, signal)
  if (image.kind !== 'image') throw new Error(`it is of kind ${image.kind}`)
  const source = createLibrarySource(image.source, components)
  onTestFinished(() => source.close())
  const bytes = Buffer.alloc(image.config.virtualSizeBytes)
  for (const encoded of image.layers) {
    const index = decodeLayerIndex(encoded, defaultLimits)
    const layer = await source.openLayer(digestOfBytes(encoded), index, signal)
    const all = index.chunks.map((_, number) => number)
    for await (const { number, bytes: plain } of layer.fetch(all, signal)) {
      const { digest = '', extents = [] } = index.chunks[number] ?? {}
      checkChunk(plain, digest)
      let at = 0
      for (const { offsetBytes, lengthBytes } of extents) {
        plain.copy(bytes, offsetBytes, at, at + lengthBytes)
        at += lengthBytes
      }
    }
  }
  return bytes
}

test('skopeo fills a library from a registry, NFS exports it, and we read it', async () => {
  const registry = await startTestRegistry()
  onTestFinished(() => registry.stop())
  const folder = temporaryFolder()
  const made = makeLayout(join(folder, 'made'))
  const { manifest, digest } = writeOwnImage(made, disk)
  const container = writeContainer(made, await tarOf({ name: 'disk/vm.raw', bytes: disk }))
  const tagged = (tag: string) => ({ 'org.opencontainers.image.ref.name': tag })
  const manifests = [
    { ...manifest, annotations: tagged('own') },
    { ...container, annotations: tagged('container') },
  ]
  made.writeIndex(manifests)
  const library = join(folder, 'library')
  mkdirSync(join(library, 'team'), { recursive: true })
  writeFileSync(join(library, 'team/plain.raw'), disk)
  const at = (tag: string) => `docker://${registry.host}/team/base:${tag}`
  for (const tag of ['own', 'container']) {
    const from = `oci:${join(folder, 'made')}:${tag}`
    await skopeo(['copy', '-q', '--dest-tls-verify=false', from, at(tag)])
    const to = `oci:${join(library, 'team/base')}:${tag}`
    await skopeo(['copy', '-q', '--src-tls-verify=false', at(tag), to])
  }
  const opened = openLibrary(library, components)
  onTestFinished(() => opened.close())
  expect(await opened.list(signal)).toMatchObject({
    entries: [
      { name: 'team/base:container', kind: 'container' },
      { name: 'team/base:own', kind: 'image', architectures: ['amd64'], digest: manifest.digest },
      { name: 'team/plain.raw', kind: 'disk', sizeBytes: disk.length },
    ],
  })
  expect((await opened.check('team/base', () => {}, signal)).wrong).toEqual([])
  expect(await opened.resolve('team/base:own', { arch: 'x86_64' }, signal)).toMatchObject({
    digest,
  })
  expect((await readDisk(opened, 'team/base:own')).equals(disk)).toBe(true)

  const store = await openTestStore(join(folder, 'images'))
  const plain = await opened.resolve('team/plain', { arch: 'x86_64' }, signal)
  const wrapped = await opened.resolve('team/base:container', { arch: 'x86_64' }, signal)
  if (plain.kind !== 'disk' || wrapped.kind !== 'container') throw new Error('of another kind')
  const how = { bounds: defaultLimits, signal }
  const found = await openWrappedDisk(wrapped.image, wrapped.wrapped, how)
  const record = await store.importImage(plain, { format: plain.format })
  expect(await store.importImage(found, { format: found.format })).toEqual(record)

  // A client that knows nothing of the folder sees the same bytes over NFS.
  const nfs = await exportByNfs(library)
  expect(await nfs.list('team')).toEqual(['base', 'plain.raw'])
  const names = readdirSync(library, { recursive: true, encoding: 'utf8' })
  const files = names.filter(name => statSync(join(library, name)).isFile())
  expect(files.length).toBeGreaterThan(8)
  for (const name of files) {
    expect((await nfs.read(name)).equals(readFileSync(join(library, name))), name).toBe(true)
  }
  // A copy made by that client is a library as good as the folder itself.
  const copy = join(folder, 'copy')
  for (const name of files) {
    mkdirSync(join(copy, name, '..'), { recursive: true })
    writeFileSync(join(copy, name), await nfs.read(name))
  }
  const copied = openLibrary(copy, components)
  onTestFinished(() => copied.close())
  expect((await readDisk(copied, 'team/base:own')).equals(disk)).toBe(true)
  expect(await copied.list(signal)).toEqual(await opened.list(signal))
}, 60_000)
