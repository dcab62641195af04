import { objectKey } from '../../resources/keys.ts'
import { virtualMachineKind } from '../../resources/virtual-machine.ts'
import { objectOf } from '../object-record.ts'
import type { Entry, Store } from '../store/store.ts'
import { fleetKey, placementKey } from './keys.ts'
import type { FleetRecord } from './member.ts'

/**
 * The fleet's era. Within one era nothing that was written is ever lost: what is not in the store
 * any more was removed on purpose. A backup that is restored begins another.
 * @returns undefined on a host that is alone, and while a restored fleet is put together again
 */
export async function readEra(store: Store): Promise<number | undefined> {
  return eraOf((await store.get(fleetKey)).entry)
}

function eraOf(entry: Entry | undefined): number | undefined {
  const record = entry?.value as FleetRecord | undefined
  return record?.recoveringSince === undefined ? record?.era : undefined
}

/**
 * Whether a machine of an era was removed on purpose, and its placement too. The store itself says
 * so, and not what is remembered of it: a transaction is never answered from a mirror.
 * @throws unavailable
 */
export async function isRemoved(
  { uid, namespace, name }: { uid: string; namespace: string; name: string },
  era: number,
  store: Store,
): Promise<boolean> {
  const keys = [fleetKey, placementKey(uid), objectKey(virtualMachineKind, { namespace, name })]
  const compare = keys.map(key => ({ key, modRevision: 0 }))
  // The first is there, so that it fails, and shows all three at one revision.
  const { current } = await store.transaction({ compare, operations: [] })
  const [fleet, placement, machine] = current
  if (eraOf(fleet) !== era || placement !== undefined) return false
  return machine === undefined || objectOf(machine).metadata.uid !== uid
}
