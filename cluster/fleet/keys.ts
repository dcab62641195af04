/** Where the fleet's own records are in the store, beside the objects of users. */

/** The record of the fleet itself: `FleetRecord`. */
export const fleetKey = 'fleet/record'
/** Who leads: a key under the leader's lease; its create revision is the fence. */
export const leaderKey = 'fleet/leader'
/** Members by name: `Member`. */
export const memberPrefix = 'fleet/members/'
/** Keys under the lease of each host that lives, by the host's name: `HostLease`. */
export const hostLeasePrefix = 'fleet/leases/'
/** Which host has which machine, by the machine's uid: `Placement`. */
export const placementPrefix = 'fleet/placements/'
/** Join tokens by id: `TokenRecord`. */
export const tokenPrefix = 'fleet/tokens/'

/** The key of one member's record. */
export const memberKey = (host: string): string => `${memberPrefix}${host}`
/** The key that is there while a host's lease is. */
export const hostLeaseKey = (host: string): string => `${hostLeasePrefix}${host}`
/** The key of a machine's placement. */
export const placementKey = (uid: string): string => `${placementPrefix}${uid}`
