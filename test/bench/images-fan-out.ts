import { createImageRack, type ImageRack, writeNoise } from '../cluster/image-rack.ts'
import { skopeo } from '../support/registry.ts'
import { type Bench, type BenchContext, figureOf, ratioOf } from './harness.ts'

const MiB = 1024 * 1024
const megabits = 100
const waitMs = 300_000

/**
 * How an image reaches many hosts at once, when each, the registry too, has a link of 100 Mbit/s:
 * beside one host that pulls it alone, and skopeo in each host's namespace at once.
 */
export const bench: Bench = {
  timeoutMs: 40 * 60_000,
  async run(context) {
    const { quick, say, afterwards, signal } = context
    const count = quick ? 4 : 8
    const sizeBytes = (quick ? 32 : 128) * MiB
    say(`${count} hosts in one fleet, and a registry`)
    const stage = await createImageRack({ hosts: count }, step => afterwards(step))
    const reference = await fillRegistry(stage, sizeBytes)
    for (const { name } of stage.rack.hosts) await stage.rack.links.slow(name, megabits)
    const seconds: Record<'one' | 'all' | 'skopeo', number[]> = { one: [], all: [], skopeo: [] }
    const copies: Record<'all' | 'skopeo', number[]> = { all: [], skopeo: [] }
    for (let round = 1; round <= (quick ? 1 : 3); round++) {
      signal.throwIfAborted()
      const one = await pull(stage, reference, 1, `one-${round}`)
      const all = await pull(stage, reference, count, `all-${round}`)
      const foreign = await pullBySkopeo(stage, reference, round)
      seconds.one.push(one.seconds)
      seconds.all.push(all.seconds)
      copies.all.push(all.sentBytes / sizeBytes)
      seconds.skopeo.push(foreign.seconds)
      copies.skopeo.push(foreign.sentBytes / sizeBytes)
      tell(context, round, { one, all, foreign }, sizeBytes)
    }
    const inTime = { value: 1.5, bound: 'atMost' } as const
    return {
      fanOutCopies: figureOf(
        `copies that the registry sends to ${count} hosts that pull at once`,
        '',
        copies.all,
        { value: 1.2, bound: 'atMost' },
      ),
      fanOutTime: ratioOf('their time to that of one host alone', seconds.all, seconds.one, inTime),
      oneCopy: figureOf('one host alone', 's', seconds.one),
      skopeoCopies: figureOf('copies with skopeo on each of them', '', copies.skopeo),
      skopeoTime: ratioOf('its time to that of one host of ours', seconds.skopeo, seconds.one),
    }
  },
}

interface Pulled {
  seconds: number
  sentBytes: number
}

function tell(
  { say }: BenchContext,
  round: number,
  pulled: Record<'one' | 'all' | 'foreign', Pulled>,
  sizeBytes: number,
): void {
  const parts = Object.entries(pulled).map(([name, { seconds, sentBytes }]) => {
    return `${name} ${seconds.toFixed(1)} s, ${(sentBytes / sizeBytes).toFixed(2)} copies`
  })
  say(`round ${round}: ${parts.join('; ')}`)
}

/** Leaves an image in the registry that no host holds. */
async function fillRegistry({ rack, registry, hosts }: ImageRack, sizeBytes: number) {
  const name = hosts[0]?.name ?? ''
  const disk = writeNoise(rack.folder, 'noise.raw', sizeBytes)
  const reference = `${registry.host}/bench/noise:1`
  await rack.must(name, 'image', 'import', disk, '--name', 'noise', '--format', 'raw')
  await rack.must(name, 'image', 'push', 'noise', reference)
  await rack.must(name, 'image', 'rm', 'noise')
  return reference
}

/** So many hosts pull it at once; then none has it any more. */
async function pull(
  stage: ImageRack,
  reference: string,
  count: number,
  name: string,
): Promise<Pulled> {
  const { rack, registry, hosts, untilImage } = stage
  const through = hosts[0]?.name ?? ''
  const beforeBytes = registry.blobBytesSent()
  const beganMs = performance.now()
  const copies = ['--copies', `${count}`]
  await rack.must(through, 'image', 'pull', reference, '--name', name, ...copies, '--no-wait')
  await untilImage(through, name, ({ status }) => status?.hosts?.length === count, waitMs)
  const seconds = (performance.now() - beganMs) / 1000
  const sentBytes = registry.blobBytesSent() - beforeBytes
  await rack.must(through, 'image', 'rm', name)
  return { seconds, sentBytes }
}

async function pullBySkopeo(
  { rack, registry, hosts }: ImageRack,
  reference: string,
  round: number,
): Promise<Pulled> {
  const beforeBytes = registry.blobBytesSent()
  const beganMs = performance.now()
  await Promise.all(
    hosts.map(({ namespace, name }) => {
      const target = `dir:${rack.folder}/skopeo-${name}-${round}`
      const from = `docker://${reference}`
      return skopeo(['copy', '--src-tls-verify=false', from, target], namespace)
    }),
  )
  const seconds = (performance.now() - beganMs) / 1000
  return { seconds, sentBytes: registry.blobBytesSent() - beforeBytes }
}
