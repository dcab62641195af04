import { randomBytes } from 'node:crypto'
import { closeSync, openSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { formFleet } from '../../agent/dev/form.ts'
import type { DevHost } from '../../agent/dev/host.ts'
import { systemClock } from '../../base/clock.ts'
import type { Image } from '../../resources/image.ts'
import { until } from '../support/host.ts'
import { startTestRegistry, type TestRegistry } from '../support/registry.ts'
import { createTestRack, type TestRack } from './rack.ts'

/** Hosts of a rack, and a registry that stands in it as a machine of its own. */
export interface ImageRack {
  rack: TestRack
  registry: TestRegistry
  /** The name of the machine with the registry: its link can be cut and slowed as a host's. */
  registryHost: string
  /**
   * The hosts that run the daemon, in one fleet unless they were asked to be alone. Their label
   * `number` counts from 1.
   */
  hosts: readonly DevHost[]
  image(host: string, name: string): Promise<Image>
  /** Waits until an image is as wanted, as a host tells it. */
  untilImage(
    host: string,
    name: string,
    wanted: (image: Image) => boolean,
    timeoutMs?: number,
  ): Promise<Image>
  /** Ends everything. */
  remove(): Promise<void>
}

/** How it is made. */
export interface ImageRackInit {
  hosts: number
  /** No fleet: each host is one of its own. */
  alone?: boolean
}

const port = 5000

/** Makes it; whoever calls has to remove it, also when this fails. */
export async function createImageRack(
  { hosts: count, alone = false }: ImageRackInit,
  onMade: (step: () => Promise<void>) => void,
): Promise<ImageRack> {
  const rack = await createTestRack({ hosts: 1 })
  onMade(() => rack.remove())
  const [place] = rack.hosts
  if (place === undefined) throw new Error('there is no place for the registry')
  const registry = await startTestRegistry({
    namespace: place.namespace,
    address: place.address,
    port,
  })
  onMade(() => registry.stop())
  const settings = { registries: { [registry.host]: { plainHttp: true } } }
  const hosts: DevHost[] = []
  for (let at = 0; at < count; at++) {
    hosts.push(await rack.addHost(1, { ...settings, labels: { number: `${at + 1}` } }))
  }
  await Promise.all(hosts.map(host => host.start()))
  if (!alone) await formFleet(hosts, { clock: systemClock })
  const image = (host: string, name: string) =>
    rack.read<Image>(host, `/apis/macfleet.dev/v1/namespaces/default/images/${name}`)
  return {
    rack,
    registry,
    registryHost: place.name,
    hosts,
    image,
    async untilImage(host, name, wanted, timeoutMs = 60_000) {
      let last: unknown
      const attempt = async () => {
        const found = await image(host, name).catch(() => undefined)
        last = found?.status
        return found !== undefined && wanted(found) ? found : undefined
      }
      return await until(`image ${name}`, attempt, timeoutMs).catch(error => {
        throw new Error(`${error.message}; last: ${JSON.stringify(last)}`)
      })
    },
    async remove() {
      await registry.stop()
      await rack.remove()
    },
  }
}

/** Writes a disk that nothing makes smaller. @returns its path */
export function writeNoise(folder: string, name: string, sizeBytes: number): string {
  const path = join(folder, name)
  const file = openSync(path, 'w')
  const piece = 1024 * 1024
  for (let at = 0; at < sizeBytes; at += piece) writeSync(file, randomBytes(piece), 0, piece, at)
  closeSync(file)
  return path
}
