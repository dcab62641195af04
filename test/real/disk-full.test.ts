import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, rmSync, statfsSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { checkout } from '../../agent/dev/local-host.ts'
import { defaultLimits } from '../../base/limits.ts'
import type { VirtualMachine } from '../../resources/virtual-machine.ts'
import {
  createTestHost,
  isReady,
  qemuPids,
  type TestHost,
  type TestHostInit,
  until,
} from '../support/host.ts'
import { noise, storeFolders } from '../support/images.ts'

const micro = join(checkout, '.macfleet/guests/micro.raw')
const MiB = 2 ** 20

/** Puts the data folder on a disk of its own. */
function onSmallDisk(size: string): TestHostInit {
  const must = (command: string, ...args: string[]) => {
    const { status, stderr } = spawnSync(command, args, { encoding: 'utf8' })
    if (status !== 0) throw new Error(`${command}: ${stderr}`)
  }
  return {
    prepare(folder) {
      mkdirSync(join(folder, 'data'))
      must('mount', '-t', 'tmpfs', '-o', `size=${size},mode=711`, 'tmpfs', join(folder, 'data'))
    },
    cleanUp: folder => must('umount', '--lazy', join(folder, 'data')),
  }
}

const readyReason = (machine: VirtualMachine) =>
  machine.status?.conditions?.find(at => at.type === 'Ready')?.reason

describe.runIf(process.getuid?.() === 0)('a full disk', { concurrent: false }, () => {
  let host: TestHost
  let spare: string
  let writer: ReturnType<TestHost['macfleet']>
  beforeAll(async () => {
    host = await createTestHost({ diskReserve: '24Mi' }, onSmallDisk('160m'))
    spare = join(host.folder, 'spare.raw')
    writeFileSync(spare, noise(64 * MiB))
    await host.must('image', 'import', micro, '--name', 'micro')
    await host.must('image', 'import', spare, '--name', 'spare')
    for (const name of ['writer', 'quiet']) {
      await host.must('run', 'micro', '--name', name, '--memory', '192Mi', '--disk', '512Mi')
    }
    for (const name of ['writer', 'quiet']) await host.untilMachine(name, isReady)
  })
  afterAll(() => host?.remove())

  const freeBytes = () => {
    const { bavail, bsize } = statfsSync(host.host.dataDir)
    return bavail * bsize
  }
  const filler = () => join(host.host.dataDir, 'filler')
  const fillBut = (leftBytes: number) =>
    spawnSync('fallocate', ['-l', String(freeBytes() - leftBytes), filler()])
  const ballastCount = () =>
    Array.from({ length: defaultLimits.ballastFiles }, (_, index) =>
      existsSync(join(host.host.dataDir, 'ballast', `ballast-${index}`)),
    ).filter(Boolean).length

  const written = 24 * MiB
  const text = Buffer.alloc(written, 'macfleet\n')
  /** Writes the text to the writer's disk and tells the hash of what is on it then. */
  const write = (atMiB: number) => {
    const put = `yes macfleet | head -c ${written} | dd of=/dev/vda bs=1M seek=${atMiB} conv=fsync`
    const get = `dd if=/dev/vda bs=1M skip=${atMiB} count=${written / MiB} | md5sum`
    return host.macfleet(
      'ssh',
      'writer',
      '--',
      `${put} && echo 3 > /proc/sys/vm/drop_caches && ${get}`,
    )
  }

  test('pauses the guest that writes, and says so', async () => {
    fillBut(10 * MiB)
    writer = write(64)
    const paused = await host.untilMachine('writer', at => readyReason(at) === 'DiskFull')
    expect(paused.status?.phase).toBe('Running')
    expect(freeBytes()).toBeLessThan(24 * MiB)
    expect(ballastCount()).toBeGreaterThan(0)
  })

  test('leaves other guests and the daemon alone', async () => {
    expect(await host.must('ssh', 'quiet', '--', 'echo', 'here')).toBe('here\n')
  })

  test('keeps no daemon from starting, although it was filled while none ran', async () => {
    const before = qemuPids(host)
    await host.kill()
    const rest = join(host.host.dataDir, 'rest')
    spawnSync('dd', ['if=/dev/zero', `of=${rest}`, 'bs=64K'])
    expect(freeBytes()).toBe(0)
    await host.start()
    rmSync(rest)
    await host.untilMachine('quiet', isReady)
    await host.untilMachine('writer', at => readyReason(at) === 'DiskFull')
    expect(qemuPids(host)).toEqual(before)
  })

  test('starts nothing new and imports nothing', async () => {
    await host.must('run', 'micro', '--name', 'third', '--memory', '64Mi')
    const third = await host.untilMachine('third', at => readyReason(at) === 'HostDiskFull')
    expect(third.status?.phase).toBe('Pending')
    await host.must('delete', 'vm', 'third')
    const other = join(host.folder, 'other.raw')
    writeFileSync(other, noise(MiB, 2))
    const before = freeBytes()
    const { code, stderr } = await host.macfleet('image', 'import', other, '--name', 'other')
    expect({ code, stderr }).toMatchObject({ code: 1, stderr: expect.stringContaining('is full') })
    expect((await storeFolders(join(host.host.dataDir, 'images'))).incoming).toEqual([])
    expect(freeBytes()).toBeGreaterThan(before - MiB)
  })

  test('is over when images are removed: the guest goes on, nothing is lost', async () => {
    expect(await host.must('image', 'prune')).toContain('spare deleted')
    await host.untilMachine('writer', isReady)
    const { code, stdout } = await writer
    expect({ code, stdout }).toEqual({
      code: 0,
      stdout: `${createHash('md5').update(text).digest('hex')}  -\n`,
    })
    await until('the ballast is back', () =>
      ballastCount() === defaultLimits.ballastFiles ? true : undefined,
    )
  })

  test('is over when the guest that is paused is deleted', async () => {
    rmSync(filler())
    fillBut(10 * MiB)
    writer = write(128)
    await host.untilMachine('writer', at => readyReason(at) === 'DiskFull')
    await host.must('delete', 'vm', 'writer')
    await writer
    expect(qemuPids(host)).toHaveLength(1)
    expect(freeBytes()).toBeGreaterThan(24 * MiB)
    expect(await host.must('ssh', 'quiet', '--', 'echo', 'here')).toBe('here\n')
  })
})
