/** Where a host can be reached by the others. */
export interface MemberAddress {
  /** An IP address. */
  host: string
  /** HTTPS: joining, certificates, later images and the API. */
  peerPort: number
  /** libp2p over TCP. */
  gossipPort: number
  /** etcd, where the host has a voter. */
  etcdClientPort: number
  etcdPeerPort: number
  /** HTTPS: parts of images. A host of an earlier version has none. */
  transferPort?: number
}

/**
 * One host of the fleet, as the store has it (`fleet/members/NAME`). The list of these is the
 * allow-list: who is not in it as Approved is nobody, whatever certificate he shows.
 */
export interface Member {
  /** Also the name of its Host object. */
  name: string
  /** A UUID, new with every join. */
  hostId: string
  /** A digest of /etc/machine-id: a data folder that was copied is found out by it. */
  machineId: string
  /** The libp2p peer id, from the key that it proved to hold. */
  peerId: string
  address: MemberAddress
  rack?: string
  /** `Pending`: it waits for `macfleet host approve` and is told nothing of the fleet. */
  state: 'Pending' | 'Approved'
  /** RFC 3339. */
  joinedAt: string
  /** The version of macfleet with which it joined or last started. */
  version: string
}

/** What the fleet says of itself (`fleet/record`). */
export interface FleetRecord {
  /** A UUID. */
  fleetId: string
  /** Grows by one with each restore from a backup; lower ones are refused in every handshake. */
  era: number
  /**
   * Added to etcd's revisions, so that ours never go back: not when a single host becomes a fleet,
   * not when a backup is restored. Revisions from before are below it and count as compacted.
   */
  revisionBase: number
  /** RFC 3339. */
  createdAt: string
  /** RFC 3339; while it is there, nothing is placed, started or deleted. */
  recoveringSince?: string
}

/** The value of `fleet/leases/NAME`; the key's create revision stands for this life of the lease. */
export interface HostLease {
  hostId: string
  /** The kernel's boot id: another one means that the machine was restarted. */
  bootId: string
}

/** The value of `fleet/reports/NAME`: all that runs on the host is in its placements. */
export interface HostReport {
  /** The fleet's, in which it was said. */
  era: number
}
