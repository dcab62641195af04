import type { Readable } from 'node:stream'
import type { JsonValue } from '../../base/json.ts'
import type { VirtualMachine } from '../../resources/virtual-machine.ts'

/** What the daemon is turning into: each of these restarts its parts, while guests run on. */
export type Transition = 'init' | 'join' | 'leave' | 'restore'

/** One host, as `macfleet cluster status` shows it. */
export interface MemberStatus {
  name: string
  state: 'Pending' | 'Approved'
  rack?: string
  address: string
  version: string
  /**
   * Whether its lease lives: it is there and can talk to the store. While this host can't: whether
   * it was heard lately.
   */
  isAlive: boolean
  /** How it takes part in the store. */
  voter?: 'leader' | 'follower' | 'learner' | 'unreachable'
  /** Milliseconds since it was heard by gossip; absent when it never was. */
  heardAgoMs?: number
}

/** How the fleet is, as this host sees it. Whatever is not known is left out. */
export interface FleetStatus {
  mode: 'single' | 'fleet'
  /** This host. */
  host: string
  version: string
  fleetId?: string
  era?: number
  /** The host that places machines. */
  leader?: string
  members: MemberStatus[]
  store: {
    kind: 'level' | 'etcd'
    isAvailable: boolean
    /** RFC 3339: since when it can't be reached, and answers are as old as that. */
    unavailableSince?: string
    error?: string
  }
  /** RFC 3339: when this host's certificate ends; it is renewed long before. */
  certificateExpiresAt?: string
  recoveringSince?: string
  /** What is under way, or how the last one ended. */
  transition?: { kind: Transition; state: 'running' | 'done' | 'failed'; message: string }
  /** Sentences about what the operator should know or do. */
  warnings: string[]
}

/** Who a join token lets in. */
export interface TokenRequest {
  ttlMs?: number
  uses?: number
  rack?: string
  /** Machine ids that need no approval. */
  machineIds?: string[]
}

/** A join token without its secret. */
export interface TokenStatus {
  id: string
  expiresAt: string
  usesLeft: number
  rack?: string
  createdAt: string
}

/** What an operator does with the fleet as a whole; the daemon does it. Errors are table errors. */
export interface FleetOperations {
  status(): Promise<FleetStatus>
  /** Begins to turn this single host into a fleet of one; `status` tells how it goes. */
  init(): Promise<void>
  /** Begins to join; `status` tells how it goes. */
  join(token: string): Promise<void>
  /** Begins to leave: this host becomes a single host without machines. */
  leave(options: { force: boolean }): Promise<void>
  createToken(request: TokenRequest): Promise<TokenStatus & { token: string }>
  listTokens(): Promise<TokenStatus[]>
  revokeToken(id: string): Promise<void>
  approveHost(name: string): Promise<void>
  /** Takes a dead host, or one that is empty, out of the member list. */
  removeHost(name: string): Promise<void>
  /** The operator vouches that the host is powered off for good: its machines are given up. */
  forgetHost(name: string): Promise<void>
  rotateAuthorities(): Promise<void>
  /** Everything in the store, sealed to the passphrase. */
  backup(passphrase: string): Promise<Readable>
  /** Begins to make this host a fleet of one out of a backup. */
  restore(sealed: Readable, passphrase: string): Promise<void>
  /** Why a machine is where it is, or nowhere; also for one that is not there yet. */
  explain(machine: VirtualMachine): Promise<JsonValue>
}
