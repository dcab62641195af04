import { createHash } from 'node:crypto'
import { createReadStream, existsSync } from 'node:fs'
import { appendFile, rm, stat, truncate } from 'node:fs/promises'
import { join } from 'node:path'
import { checkout } from '../../agent/dev/local-host.ts'
import { runCommand } from '../../base/command.ts'
import { createImageRack, type ImageRack, writeNoise } from '../cluster/image-rack.ts'
import { isReady } from '../support/host.ts'
import { type Bench, figureOf, ratioOf } from './harness.ts'

const MiB = 1024 * 1024
const megabits = 100
const bootMs = 300_000
const debian = join(checkout, '.macfleet/guests/debian.qcow2')

/**
 * A machine on an image that is not here, with so much incompressible data beyond its system, over
 * a link of 100 Mbit/s: until it answers SSH, beside the same from a local copy. When the rest has
 * come, the link is cut and the guest reads its whole disk. The guest has one vCPU: two would take
 * two cores whole while it boots, and on a machine that has no more, what the registry and the link
 * use of them would count as waiting.
 */
export const bench: Bench = {
  timeoutMs: 60 * 60_000,
  async run({ quick, say, afterwards, signal }) {
    const beyondBytes = (quick ? 128 : 1024) * MiB
    const stage = await createImageRack({ hosts: 2, alone: true }, step => afterwards(step))
    say('an image with noise beyond its system goes to the registry')
    const image = await pushImage(stage, beyondBytes)
    const [, host] = stage.hosts
    if (host === undefined) throw new Error('there is no second host')
    await stage.rack.links.slow(host.name, megabits)
    const times: Record<'lazy' | 'local' | 'whole', number[]> = { lazy: [], local: [], whole: [] }
    for (let round = 1; round <= (quick ? 1 : 3); round++) {
      signal.throwIfAborted()
      const name = `lazy-${round}`
      const beganMs = performance.now()
      const pull = ['image', 'pull', image.reference, '--name', name, '--lazy']
      await stage.rack.must(host.name, ...pull)
      times.lazy.push(await boot(stage, [host.name, name, 'first'], beganMs, say))
      const isWhole = ({ status }: { status?: { hosts?: string[] } }) => status?.hosts?.length === 1
      await stage.untilImage(host.name, name, isWhole, bootMs)
      times.whole.push((performance.now() - beganMs) / 1000)
      if (round === 1) {
        say('the link is cut, and the guest reads its whole disk')
        await stage.rack.links.cut(stage.registryHost)
        await readWholeDisk(stage, host.name, 'first', image)
        await stage.rack.links.heal(stage.registryHost)
      }
      await stage.rack.must(host.name, 'delete', 'vm', 'first')
      times.local.push(await boot(stage, [host.name, name, 'second'], performance.now(), say))
      await stage.rack.must(host.name, 'delete', 'vm', 'second')
      await stage.rack.must(host.name, 'image', 'rm', name)
      const [lazy, local, whole] = [times.lazy, times.local, times.whole].map(all => all.at(-1))
      say(`round ${round}: lazy ${lazy} s, local ${local} s, whole after ${whole} s`)
    }
    const target = { value: 1.25, bound: 'atMost' } as const
    return {
      lazyBoot: ratioOf(
        'SSH of a lazily started machine to a local one',
        times.lazy,
        times.local,
        target,
      ),
      lazySeconds: figureOf('lazily started, until SSH', 's', times.lazy),
      localSeconds: figureOf('from a local copy, until SSH', 's', times.local),
      wholeSeconds: figureOf('until all of the image was there', 's', times.whole),
    }
  },
}

interface PushedImage {
  reference: string
  systemBytes: number
  beyondBytes: number
  /** Of what is beyond the system. */
  digest: string
}

async function pushImage({ rack, registry, hosts }: ImageRack, beyondBytes: number) {
  if (!existsSync(debian)) throw new Error('run script/guests/debian first')
  const disk = join(rack.folder, 'debian.raw')
  await runCommand('qemu-img', ['convert', '-O', 'raw', debian, disk], { timeoutMs: 120_000 })
  const { size: systemBytes } = await stat(disk)
  const noise = writeNoise(rack.folder, 'noise.raw', beyondBytes)
  const hash = createHash('sha256')
  await truncate(disk, systemBytes)
  for await (const piece of createReadStream(noise, { highWaterMark: MiB })) {
    hash.update(piece)
    await appendFile(disk, piece)
  }
  await rm(noise)
  // A partition of its own: the guest makes its root as large as the disk lets it.
  const input = `start=${systemBytes / 512}, type=83\n`
  const append = ['--append', '--no-reread', '-q', disk]
  await runCommand('sfdisk', append, { timeoutMs: 10_000, input })
  const name = hosts[0]?.name ?? ''
  const reference = `${registry.host}/bench/debian:1`
  await rack.must(name, 'image', 'import', disk, '--name', 'debian', '--format', 'raw')
  await rm(disk)
  await rack.must(name, 'image', 'push', 'debian', reference)
  return { reference, systemBytes, beyondBytes, digest: hash.digest('hex') }
}

/** @returns seconds from `beganMs` until the machine answers SSH */
async function boot(
  { rack }: ImageRack,
  [host, image, name]: readonly [string, string, string],
  beganMs: number,
  say: (text: string) => void,
): Promise<number> {
  const size = ['--cpu', '1', '--memory', '512Mi']
  await rack.must(host, 'run', image, '--name', name, ...size)
  const { status } = await rack.untilMachine(host, name, isReady, bootMs)
  say(`${image}: ${JSON.stringify(status?.bootTimings)}`)
  return Math.round((performance.now() - beganMs) / 10) / 100
}

async function readWholeDisk(
  { rack }: ImageRack,
  host: string,
  name: string,
  { systemBytes, beyondBytes, digest }: PushedImage,
): Promise<void> {
  const [skip, count] = [systemBytes / MiB, beyondBytes / MiB]
  const script = `dd if=/dev/vda bs=1M count=${skip} of=/dev/null 2>/dev/null &&
    dd if=/dev/vda bs=1M skip=${skip} count=${count} 2>/dev/null | sha256sum`
  const said = await rack.must(host, 'ssh', name, '--', 'sudo', 'sh', '-c', `'${script}'`)
  if (!said.startsWith(digest)) throw new Error(`the guest read something else: ${said}`)
}
