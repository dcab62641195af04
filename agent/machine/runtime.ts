import type { Console } from '../../kvm/console.ts'
import type { Snapshot, SnapshotInit } from '../../kvm/disk-snapshot.ts'
import type { Guest } from '../../kvm/guest.ts'
import type { GuestAgent } from '../../kvm/guest-agent.ts'
import type { View } from './status.ts'

/** How a guest's disk is copied. */
export interface CopyRequest extends Pick<SnapshotInit, 'owner' | 'onProgress' | 'signal'> {
  qemuImage: string
}

/** A guest whose QEMU runs, and what it has shown of itself. */
export interface Runtime {
  guest: Guest
  console: Console
  agent: GuestAgent
  runState(): View['runState']
  /** The guest's own address, once its agent told it. */
  address(): string | undefined
  /** Whether something inside answered since it last started. */
  answered(): boolean
  agentConnected(): boolean
  /**
   * Copies what the guest wrote into `folder.snapshot` while it goes on (disk-snapshot.ts); one
   * copy at a time. `dropSnapshot` is to be called after it, whether it failed or not.
   */
  takeSnapshot(request: CopyRequest): Promise<Snapshot>
  dropSnapshot(): Promise<void>
  /** Lets go of the guest, which runs on. */
  close(): Promise<void>
}
