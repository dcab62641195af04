import type { Placement } from '../../cluster/fleet/placement.ts'
import type { Standing } from './decide.ts'
import type { GuestRecord } from './record.ts'

/**
 * What a placement means to one host. `elsewhere`: the machine belongs to another host, to none, or
 * to this one anew without the disk that is here; what is here of it has to go.
 * @param placement undefined when there is none, or none is known
 * @param hasPeers without others no machine is another host's: this one had another name before,
 *   and what is here of its machines must not go
 */
export function standingOf(
  placement: Placement | undefined,
  record: Pick<GuestRecord, 'diskEpoch'> | undefined,
  host: string,
  hasPeers = true,
): Standing | 'elsewhere' {
  if (placement === undefined) return 'unknown'
  if (placement.host !== host) return hasPeers ? 'elsewhere' : 'unknown'
  const { state, epoch, diskEpoch = epoch } = placement
  if (record?.diskEpoch !== undefined && record.diskEpoch !== diskEpoch) return 'elsewhere'
  switch (state) {
    case 'Assigned':
    case 'Claimed':
      return 'ours'
    case 'Resting':
      return 'resting'
    case 'Waking':
      return 'waking'
    case 'Refused':
    case 'Lost':
    case 'Gone':
      return 'elsewhere'
  }
}

/** Whose status is this host's to tell; that of the others is the leader's, or another host's. */
export function isTold(standing: Standing | 'elsewhere'): boolean {
  return standing === 'ours' || standing === 'resting' || standing === 'waking'
}
