import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { checkout } from '../../agent/dev/local-host.ts'
import type { Image } from '../../resources/image.ts'
import { createTestHost, readApi, type TestHost, until } from '../support/host.ts'

const micro = join(checkout, '.macfleet/guests/micro.raw')
const MiB = 1024 * 1024

let host: TestHost
beforeAll(async () => {
  host = await createTestHost()
  await host.must('image', 'import', micro, '--name', 'micro')
})
afterAll(() => host?.remove())

const run = (image: string, name: string, ...more: string[]) =>
  host.must('run', image, '--name', name, '--memory', '192Mi', '--wait', ...more)
const imagesPath = '/apis/macfleet.dev/v1/namespaces/default/images'
const imageOf = (name: string) => readApi<Image>(host.host.socket, `${imagesPath}/${name}`)
const conditionOf = (image: Image, type: string) =>
  image.status?.conditions?.find(at => at.type === type)

/** Runs a shell command in a machine. */
const inside = (machine: string, command: string) =>
  host.must('exec', machine, '--', 'sh', '-c', command)

/** The raw disk of an image on this host. */
async function diskOf(image: string): Promise<Buffer> {
  const { digest = '' } = (await imageOf(image)).status ?? {}
  const folder = join(host.host.dataDir, 'images', digest.slice('sha256:'.length))
  return readFileSync(join(folder, 'disk.raw'))
}

/** What copies of disks are left beside machines' disks. */
function leftovers(): string[] {
  const guests = join(host.host.dataDir, 'guests')
  return readdirSync(guests)
    .map(uid => join(guests, uid, 'guest/snapshot.qcow2'))
    .filter(path => existsSync(path))
}

/** Writes 64 KiB of one letter at a place of the guest's disk, past what its cache keeps. */
const write = (letter: string, atMib: number) =>
  `head -c 65536 /dev/zero | tr '\\0' ${letter} | ` +
  `dd of=/dev/vda bs=4096 seek=${atMib * 256} conv=notrunc,fsync 2>/dev/null`
const lettersOf = (disk: Buffer, atMib: number) =>
  new Set(disk.toString('latin1', atMib * MiB, atMib * MiB + 65_536))

describe('a commit', { concurrent: false }, () => {
  test('of a machine that runs holds what it wrote, and it goes on', async () => {
    await run('micro', 'web', '--disk', '96Mi')
    await inside('web', `${write('a', 80)}; ${write('b', 90)}`)
    await inside('web', '(while date +%s%N > /tmp/tick; do sleep 0.05; done) > /dev/null 2>&1 &')
    const said = await host.macfleet('image', 'commit', 'web', 'one', '--description', 'of web')
    expect(said).toMatchObject({ code: 0 })
    expect(said.stdout).toMatch(/^image\.macfleet\.dev\/one committed \(sha256:[0-9a-f]{64}\)\n$/)
    // The micro guest lives in memory: it has no file system on its disk to freeze.
    expect(said.stderr).toContain('as after a loss of power: the guest has no file system')
    const image = await imageOf('one')
    expect(image).toMatchObject({
      spec: { description: 'of web', firmware: 'bios' },
      status: { phase: 'Ready', virtualSizeBytes: 96 * MiB, hosts: [expect.any(String)] },
    })
    expect(conditionOf(image, 'FileSystemsConsistent')?.status).toBe('False')
    const disk = await diskOf('one')
    expect([lettersOf(disk, 80), lettersOf(disk, 90)]).toEqual([new Set('a'), new Set('b')])
    expect(leftovers()).toEqual([])
    const tick = await inside('web', 'cat /tmp/tick')
    await until('it goes on', async () =>
      (await inside('web', 'cat /tmp/tick')) === tick ? undefined : true,
    )
  })

  test('is what another machine starts from, and what that trims is zero', async () => {
    await run('one', 'two')
    const letters = await inside('two', 'dd if=/dev/vda bs=1048576 skip=90 count=1 | head -c 3')
    expect(letters).toBe('bbb')
    await inside('two', `blkdiscard -o ${80 * MiB} -l 131072 /dev/vda; ${write('c', 85)}`)
    await host.must('stop', 'two', '--wait')
    // Its disk is read where it lies: nothing runs.
    const said = await host.macfleet('image', 'commit', 'two', 'three')
    expect(said).toMatchObject({ code: 0, stderr: expect.not.stringContaining('power') })
    const disk = await diskOf('three')
    const seen = [80, 85, 90].map(at => lettersOf(disk, at))
    expect(seen).toEqual([new Set('\0'), new Set('c'), new Set('b')])
    await host.must('image', 'verify', 'three')
    await host.must('start', 'two', '--wait')
  })

  test('that makes no sense is refused, and leaves nothing', async () => {
    const again = await host.macfleet('image', 'commit', 'web', 'one')
    expect(again).toMatchObject({ code: 1, stderr: expect.stringContaining('already exists') })
    const nobody = await host.macfleet('image', 'commit', 'nobody', 'four')
    expect(nobody.code).toBe(4)
    expect((await host.macfleet('get', 'image', 'four')).code).toBe(4)
  })
})
