import { execFileSync } from 'node:child_process'
import { randomInt } from 'node:crypto'
import { existsSync, readdirSync } from 'node:fs'
import { request } from 'node:http'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { setTimeout as delay } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import type { DevHost } from '../../agent/dev/host.ts'
import { findCondition } from '../../resources/condition.ts'
import type { Image } from '../../resources/image.ts'
import { createImageRack, type ImageRack, writeNoise } from '../cluster/image-rack.ts'
import { microGuestIsBuilt } from '../support/demo-guest.ts'
import { isReady, until } from '../support/host.ts'

const MiB = 1024 * 1024
const noiseBytes = 16 * MiB
/** Slow enough that something can happen while an image is on its way. */
const slowMegabits = 50
const guests = join(import.meta.dirname, '../../.macfleet/guests')
const steps: (() => Promise<void>)[] = []
let stage: ImageRack
let one: DevHost
let two: DevHost
let three: DevHost
/** Of noise in the registry. */
let reference: string

beforeAll(async () => {
  stage = await createImageRack({ hosts: 3 }, step => steps.push(step))
  const [first, second, third] = stage.hosts
  if (!first || !second || !third) throw new Error('there are three hosts')
  one = first
  two = second
  three = third
  reference = await publish()
}, 120_000)
afterAll(async () => {
  for (const step of steps.reverse()) await step()
})

const must = (host: DevHost, ...args: string[]) => stage.rack.must(host.name, ...args)
const namesOf = (hosts: readonly DevHost[]) => hosts.map(({ name }) => name).sort()
const isHeldBy =
  (...hosts: DevHost[]) =>
  ({ status }: Image) =>
    JSON.stringify(status?.hosts ?? []) === JSON.stringify(namesOf(hosts))
const isWholeOn =
  (...hosts: DevHost[]) =>
  (image: Image) =>
    isHeldBy(...hosts)(image) && image.status?.filling === undefined
const readyOf = ({ status }: Image) => findCondition(status?.conditions, 'Ready')
const imagesOf = ({ dataDir }: DevHost) => join(dataDir, 'images')

/** What a host has of images that are on their way. */
function onTheWay(host: DevHost): string[] {
  const folder = join(imagesOf(host), 'filling')
  return existsSync(folder) ? readdirSync(folder) : []
}

/** Bytes that a folder takes on the disk. */
function takenBytes(folder: string): number {
  const said = execFileSync('du', ['-s', '--block-size=1', folder], { encoding: 'utf8' })
  return Number(said.split('\t')[0])
}

/** Leaves an image of noise in the registry that no host holds. @returns its reference */
async function publish(): Promise<string> {
  const disk = writeNoise(stage.rack.folder, 'noise.raw', noiseBytes)
  const pushed = `${stage.registry.host}/team/noise:1`
  await must(one, 'image', 'import', disk, '--name', 'noise', '--format', 'raw')
  await must(one, 'image', 'push', 'noise', pushed)
  await remove('noise')
  return pushed
}

async function remove(name: string): Promise<void> {
  await must(one, 'image', 'rm', name)
  await until(`image ${name} is gone`, async () => {
    const found = await stage.image(one.name, name).catch(() => undefined)
    return found === undefined ? true : undefined
  })
}

async function verify(name: string, ...hosts: DevHost[]): Promise<void> {
  for (const host of hosts) {
    const { code, stdout, stderr } = await stage.rack.macfleet(host.name, 'image', 'verify', name)
    expect({ code, stdout, stderr }).toMatchObject({ code: 0 })
  }
}

async function slowRegistry(): Promise<void> {
  onTestFinished(() => stage.rack.links.heal())
  await stage.rack.links.slow(stage.registryHost, slowMegabits)
}

/** Waits until so much of the only image on its way has come to a host. */
async function untilCome(host: DevHost, leastBytes: number): Promise<void> {
  await until('a part of the image has come', () =>
    takenBytes(join(imagesOf(host), 'filling')) > leastBytes ? true : undefined,
  )
}

/** Bytes of images that a daemon has fetched since it started. */
async function fetchedBytes({ socket }: DevHost): Promise<number> {
  const lines = (await readText(socket, '/metrics')).split('\n')
  return lines
    .filter(line => line.startsWith('macfleet_image_fetched_bytes_total{'))
    .filter(line => !line.includes('local'))
    .reduce((sum, line) => sum + Number(line.split(' ')[1]), 0)
}

function readText(socketPath: string, path: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const asked = request({ socketPath, path }, answer => {
      text(answer).then(resolve, reject)
    })
    asked.on('error', reject)
    asked.end()
  })
}

describe.runIf(microGuestIsBuilt)('images in a fleet', () => {
  test('one that a single host imported runs on others, and is kept there', async () => {
    await must(
      one,
      ...['image', 'import', join(guests, 'micro.raw'), '--name', 'micro'],
      ...['--kernel', join(guests, 'vmlinuz'), '--initrd', join(guests, 'initrd')],
      ...['--command-line', 'console=ttyS0 quiet no_timer_check'],
    )
    const elsewhere = ['--host-selector', 'number=2', '--cpu', '100m', '--memory', '128Mi']
    await must(one, 'run', 'micro', '--name', 'vm', ...elsewhere)
    const machine = await stage.rack.untilMachine(one.name, 'vm', isReady)
    expect(machine.status?.host).toBe(two.name)
    const image = await stage.untilImage(three.name, 'micro', isWholeOn(one, two))
    expect(image.status?.users).toEqual(['default/vm'])

    await must(one, 'image', 'place', 'micro', '--copies', '3')
    const placed = await stage.untilImage(two.name, 'micro', isWholeOn(one, two, three))
    expect(placed.status?.copyHosts).toEqual(namesOf([one, two, three]))
    await verify('micro', three)
  })

  test('one that all pull at once leaves the registry about once', async () => {
    await slowRegistry()
    const beforeBytes = stage.registry.blobBytesSent()
    await must(one, 'image', 'pull', reference, '--name', 'together', '--copies', '3')
    await stage.untilImage(one.name, 'together', isWholeOn(one, two, three))
    const copies = (stage.registry.blobBytesSent() - beforeBytes) / noiseBytes
    expect(copies).toBeLessThan(1.5)
    await verify('together', one, three)
    await remove('together')
  })

  test('a host that dies on the way holds nobody up, and goes on where it was', async () => {
    await slowRegistry()
    await must(one, 'image', 'pull', reference, '--name', 'torn', '--copies', '3', '--no-wait')
    await untilCome(two, noiseBytes / 4)
    await two.kill('daemon')
    await stage.untilImage(one.name, 'torn', ({ status }) =>
      [one, three].every(({ name }) => status?.hosts?.includes(name)),
    )
    // From here on only hosts have it.
    await stage.registry.kill()
    onTestFinished(() => stage.registry.start())
    await two.start()
    await stage.untilImage(one.name, 'torn', isWholeOn(one, two, three))
    // What had come was not fetched again.
    expect(await fetchedBytes(two)).toBeLessThan(noiseBytes * 0.9)
    await verify('torn', two)
    await remove('torn')
  })

  test('deleting one on its way gives its room back', async () => {
    const beforeBytes = [one, two, three].map(host => takenBytes(imagesOf(host)))
    await slowRegistry()
    await must(one, 'image', 'pull', reference, '--name', 'unwanted', '--copies', '3', '--no-wait')
    await untilCome(two, noiseBytes / 4)
    await remove('unwanted')
    await until('nothing is on its way', () =>
      [one, two, three].every(host => onTheWay(host).length === 0) ? true : undefined,
    )
    for (const [at, host] of [one, two, three].entries()) {
      expect(takenBytes(imagesOf(host))).toBeLessThan((beforeBytes[at] ?? 0) + MiB)
    }
  })

  test('a registry that is down is waited for, and what it refuses is said', async () => {
    await stage.registry.kill()
    await must(two, 'image', 'pull', reference, '--name', 'later', '--no-wait')
    const waiting = await stage.untilImage(
      one.name,
      'later',
      image => readyOf(image)?.reason === 'PullFailed',
    )
    expect(readyOf(waiting)?.message).toContain(stage.registry.host)
    await stage.registry.start()
    await stage.untilImage(one.name, 'later', ({ status }) => status?.hosts?.length === 1)
    await remove('later')

    const none = `${stage.registry.host}/team/none:1`
    const refused = await stage.rack.macfleet(two.name, 'image', 'pull', none)
    expect(refused).toMatchObject({ code: 1, stderr: expect.stringContaining('team/none') })
    const failed = await stage.untilImage(
      one.name,
      'none-1',
      ({ status }) => status?.phase === 'Failed',
    )
    expect(readyOf(failed)).toMatchObject({ reason: 'PullFailed' })
    const secret = ['--secret', 'nowhere', '--name', 'secretless']
    const keyless = await stage.rack.macfleet(two.name, 'image', 'pull', reference, ...secret)
    expect(keyless).toMatchObject({ code: 1, stderr: expect.stringContaining('nowhere') })
    const foreign = ['--arch', 'aarch64', '--name', 'foreign']
    const wrong = await stage.rack.macfleet(two.name, 'image', 'pull', reference, ...foreign)
    expect(wrong).toMatchObject({ code: 1, stderr: expect.stringMatching(/aarch64|x86_64/) })
    // The refusal was told to all, and nobody asks again at once.
    const { metadata } = await stage.image(one.name, 'none-1')
    expect(metadata.resourceVersion).toBe(failed.metadata.resourceVersion)
  })

  test('a daemon that is killed again and again while it pulls', async () => {
    const points = process.env['MACFLEET_TEST_LONG'] ? 50 : 3
    await slowRegistry()
    const waits = Array.from({ length: points }, () => randomInt(0, 1_500))
    console.log(`killed after ${waits.join(', ')} ms`)
    for (const [at, waitMs] of waits.entries()) {
      if (at > 0 && at % 3 === 0) await remove('stubborn')
      if (at % 3 === 0) {
        const there = ['--hosts', 'number=3', '--copies', '1', '--no-wait']
        await must(one, 'image', 'pull', reference, '--name', 'stubborn', ...there)
      }
      await delay(waitMs)
      await three.kill('daemon')
      const { status } = await stage.image(one.name, 'stubborn')
      const digest = status?.digest?.replace('sha256:', '') ?? 'none'
      // Who is told to hold it does: what is half there lies elsewhere.
      if (status?.hosts?.includes(three.name)) {
        expect(existsSync(join(imagesOf(three), digest))).toBe(true)
      }
      await three.start()
      if (at % 3 === 2 || at === points - 1) {
        await stage.untilImage(one.name, 'stubborn', isWholeOn(three))
        await verify('stubborn', three)
        expect(onTheWay(three)).toEqual([])
      }
    }
  }, 600_000)
})
