import { expect, onTestFinished, test } from 'vitest'
import { systemClock } from '../../base/clock.ts'
import { defaultLimits } from '../../base/limits.ts'
import { silentLog } from '../../base/log.ts'
import { removeMember } from '../../cluster/membership/members.ts'
import type { LayerIndex } from '../../images/layer-index.ts'
import { createPeerSource } from '../../images/peers/peer-source.ts'
import { type FleetHost, makeFleet, tokenOf } from '../../test/support/fleet-hosts.ts'
import { incompressible, makePeerImage } from '../../test/support/peer-images.ts'
import { collect } from '../../test/support/peer-server.ts'
import { temporaryFolder } from '../../test/support/temporary-folder.ts'
import { completeConfig } from '../config.ts'
import { createPeerTransfers, type OwnPeerTransfers } from './open-peer-transfers.ts'

const signal = new AbortController().signal
const components = { clock: systemClock, log: silentLog, limits: defaultLimits }

async function startTransfers({ folder, machine, membership }: FleetHost) {
  const config = completeConfig({})
  const init = { config, fleet: folder, address: machine.address }
  const transfers = createPeerTransfers(init, components)
  onTestFinished(() => transfers.stop())
  await transfers.begin(membership.members)
  return transfers
}

function sourceOf(name: string, transfers: OwnPeerTransfers) {
  const description = transfers.peer(name)
  if (description === undefined) throw new Error(`${name} gives nothing`)
  const source = createPeerSource(description, { ...components, tls: () => transfers.tls() })
  onTestFinished(() => source.close())
  return source
}

test('members fetch from each other, across renewals, until they are removed', async () => {
  const fleet = makeFleet()
  const first = await fleet.begin()
  const second = await fleet.join(await tokenOf(first))
  const [serving, asking] = await Promise.all([startTransfers(first), startTransfers(second)])
  const image = await makePeerImage(temporaryFolder(), [incompressible(2 * 1024 * 1024)])
  serving.server.setImage(image.served)
  const { name } = first.machine
  await expect.poll(() => asking.peer(name)?.port).toBe(7484)
  expect(asking.peer(second.machine.name)).toBeUndefined()
  expect(asking.peer('nobody')).toBeUndefined()
  const source = sourceOf(name, asking)
  const digest = image.served.config.layers[0]?.digest ?? ''
  const layer = await source.openLayer(digest, image.indexes[0] as LayerIndex, signal)
  const fetch = async () => (await collect(layer.fetch([0, 1], signal))).numbers
  await expect.poll(() => fetch().catch(() => []), { timeout: 10_000 }).toEqual([0, 1])
  const shown: string[] = []
  asking.onTls(({ certificate }) => shown.push(certificate))
  for (const [host, transfers] of [
    [first, serving],
    [second, asking],
  ] as const) {
    await host.membership.renewal.now()
    transfers.tlsChanged()
  }
  expect(shown).toEqual([second.folder.tls('hosts').cert])
  expect(await fetch()).toEqual([0, 1])
  await removeMember(fleet.store, second.machine.name)
  await expect.poll(() => fetch().catch(error => error.code)).toBe('sourceFailed')
})
