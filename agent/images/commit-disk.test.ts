import { execFileSync } from 'node:child_process'
import { mkdirSync, readFileSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { isFailure } from '../../base/errors.ts'
import { defaultLimits } from '../../base/limits.ts'
import type { ImageRecord } from '../../images/image-record.ts'
import type { ImageStore } from '../../images/image-store.ts'
import { noise, openTestStore, storeFolders, writeSparseFile } from '../../test/support/images.ts'
import { testRecord, testTracked } from '../../test/support/machine.ts'
import { temporaryFolder } from '../../test/support/temporary-folder.ts'
import type { GuestHost } from '../machine/guest-host.ts'
import type { Tracked } from '../machine/tracked.ts'
import { copyDisk, makeImage } from './commit-disk.ts'

const MiB = 1024 * 1024

interface Committable {
  folder: string
  images: ImageStore
  parent: ImageRecord
  tracked: Tracked
}

/** A machine that was stopped, upon an image with a kernel of its own. */
async function stoppedMachine(
  changes: Parameters<typeof testRecord>[0] = {},
): Promise<Committable> {
  const folder = temporaryFolder()
  const images = await openTestStore(join(folder, 'images'))
  const path = join(folder, 'parent.raw')
  writeSparseFile(path, 8 * MiB, [[0, noise(3 * MiB)]])
  await writeFile(join(folder, 'vmlinuz'), 'a kernel')
  const boot = { kernel: { path: join(folder, 'vmlinuz') }, commandLine: 'quiet' }
  const parent = await images.importImage({ path }, { format: 'raw', firmware: 'uefi', boot })
  const tracked = testTracked(folder, testRecord({ imageDigest: parent.digest, ...changes }))
  mkdirSync(tracked.folder.guest, { recursive: true })
  return { folder, images, parent, tracked }
}

/** Makes the machine's disk anew, with some things written upon an image. */
function writeDisk(
  { images, tracked }: Committable,
  base: ImageRecord,
  commands: string[],
  size = '8M',
): void {
  const options = ['-o', 'cluster_size=128k,extended_l2=on']
  const { disk } = tracked.folder
  execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', ...options, disk, size])
  const graph = {
    driver: 'qcow2',
    file: { driver: 'file', filename: disk },
    backing: {
      driver: 'raw',
      file: { driver: 'file', filename: images.diskPath(base.digest), 'read-only': true },
      'read-only': true,
    },
  }
  const input = `${commands.join('\n')}\n`
  const stdio: ['pipe', 'ignore', 'inherit'] = ['pipe', 'ignore', 'inherit']
  execFileSync('qemu-io', [`json:${JSON.stringify(graph)}`], { input, stdio })
}

async function commit(
  { images, tracked }: Committable,
  parent: ImageRecord,
  init: {
    commitLayers?: number
    signal?: AbortSignal
    afterCopy?: () => void
    size?: string
  } = {},
): Promise<ImageRecord> {
  const { commitLayers = 32, signal = new AbortController().signal } = init
  const limits = { ...defaultLimits, imageReserveBytes: 0, commitLayers }
  // A machine that does not run needs nothing of its host.
  const components = { images, limits, host: {} as GuestHost }
  const watch = { onProgress: () => {}, signal }
  const copy = await copyDisk(tracked, watch, components)
  try {
    init.afterCopy?.()
    return await makeImage({ parent, size: init.size }, copy, watch, components)
  } finally {
    await copy.close()
  }
}

test('commits lie upon each other, up to a bound: then they become one layer', async () => {
  const made = await stoppedMachine()
  const { images, parent, folder } = made
  writeDisk(made, parent, ['write -P 1 1M 64k', 'write -z 2M 64k'])
  const second = await commit(made, parent, { commitLayers: 2 })
  expect(second).toMatchObject({ firmware: 'uefi', boot: { commandLine: 'quiet' } })
  expect(second.layerDigests).toEqual([...parent.layerDigests, expect.any(String)])
  writeDisk(made, second, ['write -P 2 1M 4k', 'write -P 3 7M 4k'])
  const third = await commit(made, second, { commitLayers: 2 })
  expect(third.layerDigests).toHaveLength(1)
  expect(third).toMatchObject({ firmware: 'uefi', boot: second.boot })
  const disk = readFileSync(images.diskPath(third.digest))
  const expected = readFileSync(images.diskPath(parent.digest))
  expected
    .fill(1, MiB, MiB + 65_536)
    .fill(2, MiB, MiB + 4096)
    .fill(3, 7 * MiB, 7 * MiB + 4096)
  expected.fill(0, 2 * MiB, 2 * MiB + 65_536)
  expect(disk.equals(expected)).toBe(true)
  // What was made on the way is gone, and all that is left is whole.
  expect((await storeFolders(join(folder, 'images'))).images).toHaveLength(3)
  for (const { digest } of [second, third]) expect((await images.verify(digest)).bad).toEqual([])
})

test('what a commit makes on the way stays when others had it before', async () => {
  const made = await stoppedMachine()
  writeDisk(made, made.parent, ['write -P 1 1M 64k'])
  const theirs = await commit(made, made.parent)
  const own = await commit(made, made.parent, { commitLayers: 1 })
  expect(own.layerDigests).toHaveLength(1)
  expect(made.images.get(theirs.digest)).toEqual(theirs)
})

test('a commit of the same content is the same image', async () => {
  const made = await stoppedMachine()
  writeDisk(made, made.parent, ['write -P 1 1M 64k'])
  const first = await commit(made, made.parent)
  writeDisk(made, made.parent, ['write -P 9 1M 64k', 'write -P 1 1M 64k'])
  expect((await commit(made, made.parent)).digest).toBe(first.digest)
})

test('a machine that is started meanwhile is refused, and nothing is left', async () => {
  const made = await stoppedMachine()
  writeDisk(made, made.parent, ['write -P 1 1M 64k'])
  const start = (): void => {
    made.tracked.record = testRecord({ runs: 2, startBegun: true })
  }
  const refused = await commit(made, made.parent, { afterCopy: start }).catch(error => error)
  expect(isFailure(refused, 'commitRefused')).toBe(true)
  const at = await commit(made, made.parent).catch(error => error)
  expect(isFailure(at, 'commitRefused')).toBe(true)
  const left = await storeFolders(join(made.folder, 'images'))
  expect(left).toEqual({ images: [expect.any(String)], incoming: [] })
})

test('a disk that says that it is larger than it was made is refused', async () => {
  const made = await stoppedMachine()
  writeDisk(made, made.parent, ['write -P 1 1M 64k'], '64M')
  const refused = await commit(made, made.parent).catch(error => error)
  expect(isFailure(refused, 'imageRefused')).toBe(true)
  const smaller = await commit(made, made.parent, { size: '63Mi' }).catch(error => error)
  expect(isFailure(smaller, 'imageRefused')).toBe(true)
  const grown = await commit(made, made.parent, { size: '64Mi' })
  expect(grown.virtualSizeBytes).toBe(64 * MiB)
})

test('a commit that nobody waits for leaves nothing', async () => {
  const made = await stoppedMachine()
  writeDisk(made, made.parent, ['write -P 1 1M 2M'])
  const left = new AbortController()
  const given = commit(made, made.parent, {
    signal: left.signal,
    afterCopy: () => left.abort(new Error('left')),
  })
  await expect(given).rejects.toThrow('left')
  expect(await storeFolders(join(made.folder, 'images'))).toMatchObject({ incoming: [] })
})
