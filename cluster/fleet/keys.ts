/** Where the fleet's own records are in the store, beside the objects of users. */

/** The record of the fleet itself: `FleetRecord`. */
export const fleetKey = 'fleet/record'
/** Who leads: a key under the leader's lease; its create revision is the fence. */
export const leaderKey = 'fleet/leader'
/** Members by name: `Member`. */
export const memberPrefix = 'fleet/members/'
/** Keys under the lease of each host that lives, by the host's name: `HostLease`. */
export const hostLeasePrefix = 'fleet/leases/'
/**
 * One key for each host, by its name, that is put together with the host's lease key, in the same
 * transaction, and never deleted: its modRevision tells one life of a lease from the next, also
 * when the lease key is gone. Its value is the lease's `HostLease`.
 */
export const hostLifePrefix = 'fleet/lives/'
/** Which host has which machine, by the machine's uid: `Placement`. */
export const placementPrefix = 'fleet/placements/'
/** Join tokens by id: `TokenRecord`. */
export const tokenPrefix = 'fleet/tokens/'
/** Which authorities are trusted and which one signs: `AuthoritiesRecord`. */
export const authoritiesKey = 'fleet/authorities'
/** What each host trusts and signs by now, by its name: `HostTrust`. */
export const hostTrustPrefix = 'fleet/trust/'
/** The name of the member that has a peer id, so that no two have the same. */
export const peerNamePrefix = 'fleet/peers/'

/** What each host has said of its guests since the fleet was restored, by its name: `HostReport`. */
export const hostReportPrefix = 'fleet/reports/'

/** The key of one member's record. */
export const memberKey = (host: string): string => `${memberPrefix}${host}`
/** The key that is there while a host's lease is. */
export const hostLeaseKey = (host: string): string => `${hostLeasePrefix}${host}`
/** The key that changes with each life of a host's lease. */
export const hostLifeKey = (host: string): string => `${hostLifePrefix}${host}`
/** The key of a host's report. */
export const hostReportKey = (host: string): string => `${hostReportPrefix}${host}`
/** The key of a machine's placement. */
export const placementKey = (uid: string): string => `${placementPrefix}${uid}`
/** The key of what a host trusts. */
export const hostTrustKey = (host: string): string => `${hostTrustPrefix}${host}`
/** The key that says whose a peer id is. */
export const peerNameKey = (peerId: string): string => `${peerNamePrefix}${peerId}`
/** The key of a join token. */
export const tokenKey = (id: string): string => `${tokenPrefix}${id}`
