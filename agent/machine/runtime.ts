import type { Console } from '../../kvm/console.ts'
import type { Guest } from '../../kvm/guest.ts'
import type { GuestAgent } from '../../kvm/guest-agent.ts'
import type { View } from './status.ts'

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
  /** Lets go of the guest, which runs on. */
  close(): Promise<void>
}
