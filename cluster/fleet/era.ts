import type { Store } from '../store/store.ts'
import { fleetKey } from './keys.ts'
import type { FleetRecord } from './member.ts'

/**
 * The fleet's era. Within one era nothing that was written is ever lost: what is not in the store
 * any more was removed on purpose. A backup that is restored begins another.
 * @returns undefined on a host that is alone, and while a restored fleet is put together again
 */
export async function readEra(store: Store): Promise<number | undefined> {
  const { entry } = await store.get(fleetKey)
  const record = entry?.value as FleetRecord | undefined
  return record?.recoveringSince === undefined ? record?.era : undefined
}
