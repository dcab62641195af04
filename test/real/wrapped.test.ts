import { execFileSync } from 'node:child_process'
import { createReadStream, readFileSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest'
import { systemClock } from '../../base/clock.ts'
import { defaultLimits } from '../../base/limits.ts'
import { silentLog } from '../../base/log.ts'
import { systemRandom } from '../../base/random.ts'
import { createRegistryClient } from '../../images/registry/client.ts'
import { parseReference } from '../../images/registry/reference.ts'
import { resolveImage } from '../../images/registry/resolve.ts'
import { openWrappedDisk } from '../../images/wrapped/wrapped-disk.ts'
import { startBareQemu } from '../support/bare-qemu.ts'
import { createBuildah } from '../support/buildah.ts'
import { until } from '../support/host.ts'
import { noise, openTestStore } from '../support/images.ts'
import { skopeo, startTestRegistry, type TestRegistry } from '../support/registry.ts'
import { temporaryFolder } from '../support/temporary-folder.ts'

const micro = join(import.meta.dirname, '../../.macfleet/guests/micro.raw')
const { signal } = new AbortController()
let registry: TestRegistry

beforeAll(async () => {
  registry = await startTestRegistry()
})
afterAll(() => registry?.stop())

/** Opens the disk of a container image in the registry. */
async function openDisk(reference: string) {
  const components = {
    ...{ clock: systemClock, limits: defaultLimits, log: silentLog, random: systemRandom },
  }
  const client = createRegistryClient(registry.access, components)
  onTestFinished(() => client.close())
  const parsed = parseReference(`${registry.host}/${reference}`)
  const how = { client, limits: defaultLimits }
  const found = await resolveImage(parsed, { arch: 'x86_64' }, how, signal)
  if (found.kind !== 'container') throw new Error(`it is of kind ${found.kind}`)
  const source = {
    name: found.reference,
    openBlob: (digest: string, ended: AbortSignal) =>
      client.streamBlob(parsed.repository, digest, {}, ended),
  }
  return openWrappedDisk(found.image, source, { bounds: defaultLimits, signal })
}

test('a disk that buildah wrapped is the disk itself, however it was sent, and boots', async () => {
  const folder = temporaryFolder()
  const packed = join(folder, 'micro.qcow2')
  execFileSync('qemu-img', ['convert', '-O', 'qcow2', '-c', '-f', 'raw', micro, packed])
  const old = join(folder, 'old.raw')
  writeFileSync(old, 'an older disk, below')
  truncateSync(old, 4096)
  const buildah = createBuildah()
  const target = '/disk/micro.raw'
  const layers = [old, micro].map(from => ({ from, to: target }))
  await buildah.build('raw', layers, 'docker')
  await buildah.build('qcow2', [{ from: packed, to: '/disk/' }], 'oci')
  const at = (tag: string) => `docker://${registry.host}/disk:${tag}`
  await buildah.push('raw', at('docker'), '--format', 'v2s2')
  await buildah.push('raw', at('zstd'), '--format', 'oci', '--compression-format', 'zstd')
  await buildah.push('qcow2', at('qcow2'))
  const images = join(folder, 'images')
  execFileSync('chmod', ['711', folder])
  const store = await openTestStore(images)
  const direct = createReadStream(micro)
  const { digest } = await store.importImage({ stream: direct }, { format: 'raw' })
  for (const tag of ['docker', 'zstd', 'qcow2']) {
    const found = await openDisk(`disk:${tag}`)
    expect(await store.importImage(found, { format: found.format }), tag).toMatchObject({ digest })
  }
  const taken = store.diskPath(digest)
  expect(readFileSync(taken).equals(readFileSync(micro))).toBe(true)
  const drive = `file=${taken},format=raw,if=virtio,snapshot=on`
  const serial = ['-chardev', 'file,id=serial,path=serial.log', '-serial', 'chardev:serial']
  const guest = await startBareQemu([
    ...['-machine', 'q35', '-cpu', 'max', '-m', '256'],
    '-drive',
    drive,
    ...serial,
  ])
  const log = join(guest.folder, 'serial.log')
  const said = () => /Run \/init as init process/.test(readSerial(log)) || undefined
  await until('the kernel on the disk has started what is on the disk', said)
}, 60_000)

const readSerial = (path: string): string => {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return ''
  }
}

test('a layer that is damaged in the registry is no image', async () => {
  const buildah = createBuildah()
  const folder = temporaryFolder()
  const disk = join(folder, 'disk.raw')
  writeFileSync(disk, noise(1024 * 1024))
  await buildah.build('rot', [{ from: disk, to: '/disk/vm.raw' }], 'oci')
  await buildah.push('rot', `docker://${registry.host}/rot:1`)
  const about = await skopeo(['inspect', '--tls-verify=false', `docker://${registry.host}/rot:1`])
  const [layer = ''] = (JSON.parse(about) as { Layers: string[] }).Layers
  const blob = readFileSync(registry.blobPath(layer))
  blob.fill(0, blob.length - 40, blob.length - 30)
  writeFileSync(registry.blobPath(layer), blob)
  const store = await openTestStore(join(folder, 'images'))
  const importing = openDisk('rot:1').then(found =>
    store.importImage(found, { format: found.format }),
  )
  await expect(importing).rejects.toThrow()
  expect(store.list()).toEqual([])
}, 60_000)
