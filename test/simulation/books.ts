import { hostLeasePrefix, leaderKey, placementPrefix } from '../../cluster/fleet/keys.ts'
import { isAnchored, type Placement, takesRoom } from '../../cluster/fleet/placement.ts'
import { nanocores } from '../../cluster/scheduler/amounts.ts'
import type { Operation } from '../../cluster/store/store.ts'
import { type Amounts, type Host, hostKind } from '../../resources/host.ts'
import { keyPrefix } from '../../resources/keys.ts'
import { type VirtualMachine, virtualMachineKind } from '../../resources/virtual-machine.ts'
import type { Effect } from './etcd.ts'
import type { World } from './world.ts'

const machinePrefix = keyPrefix(virtualMachineKind)
const hostPrefix = keyPrefix(hostKind)
/** States that only the host may write which has the machine. */
const hostsOwn = ['Claimed', 'Refused', 'Resting', 'Waking']

/**
 * What the store holds, kept by every transaction that takes effect, each of which is looked at:
 * what may never be is seen when it comes to be.
 */
export class Books {
  readonly machines = new Map<string, VirtualMachine>()
  readonly placements = new Map<string, Placement>()
  readonly hosts = new Map<string, Host>()
  /** Uids of machines that somebody asked to delete. */
  readonly deletable = new Set<string>()
  readonly #world: World
  readonly #allocatable: ReadonlyMap<string, Amounts>
  /** Sums that no placement has changed since. */
  readonly #reserved = new Map<string, Amounts>()
  /** When the newest leader was elected, as its fence. */
  #newestFence = 0
  /** Transactions that took effect. */
  count = 0
  /** The host that leads. */
  leader: string | undefined
  decisions = 0

  constructor(world: World, allocatable: ReadonlyMap<string, Amounts>) {
    this.#world = world
    this.#allocatable = allocatable
  }

  take({ host, transaction, result, fence }: Effect): void {
    this.count++
    if (fence !== undefined) this.#checkFence(host, fence)
    for (const operation of transaction.operations) {
      const key = keyOf(operation)
      const value = 'put' in operation ? operation.value : undefined
      if (key === leaderKey && value !== undefined) {
        this.#newestFence = result.revision
        this.leader = host
      }
      if (key.startsWith(machinePrefix)) this.#takeMachine(key, value as unknown as VirtualMachine)
      else if (key.startsWith(hostPrefix)) {
        const name = key.slice(hostPrefix.length)
        if (value === undefined) this.hosts.delete(name)
        else this.hosts.set(name, value as unknown as Host)
      } else if (key.startsWith(placementPrefix)) {
        const uid = key.slice(placementPrefix.length)
        this.#takePlacement(uid, value as unknown as Placement | undefined, host, fence)
      } else if (key.startsWith(hostLeasePrefix) && value === undefined) {
        this.#world.tell(host, `deletes ${key}`)
      }
    }
  }

  /** What is promised of a host. */
  reserved(host: string): Amounts {
    const known = this.#reserved.get(host)
    if (known !== undefined) return known
    const total = { cpu: 0, memoryBytes: 0, diskBytes: 0, machines: 0 }
    for (const placement of this.placements.values()) {
      if (placement.host !== host || !takesRoom(placement)) continue
      total.cpu += placement.request.cpu
      total.memoryBytes += placement.request.memoryBytes
      total.machines++
    }
    this.#reserved.set(host, total)
    return total
  }

  /** Whether a host has room for it beside what is promised. */
  hasRoom(host: string, request: Amounts): boolean {
    const allocatable = this.#allocatable.get(host)
    if (allocatable === undefined) return false
    const { cpu, memoryBytes, machines } = this.reserved(host)
    return (
      nanocores(cpu + request.cpu) <= nanocores(allocatable.cpu) &&
      memoryBytes + request.memoryBytes <= allocatable.memoryBytes &&
      machines + request.machines <= allocatable.machines
    )
  }

  #checkFence(host: string, fence: number): void {
    this.decisions++
    if (fence >= this.#newestFence) return
    const message = `${host} decided in term ${fence}, after term ${this.#newestFence} had begun`
    this.#world.violate(message, [host])
  }

  #takeMachine(key: string, next: VirtualMachine | undefined): void {
    const before = this.machines.get(key)
    const uid = before?.metadata.uid ?? ''
    const replaced = before !== undefined && next?.metadata.uid !== uid
    if (replaced && !this.deletable.has(uid)) {
      const { name } = before.metadata
      this.#world.violate(`machine ${name} (${uid}) is gone, and nobody deleted it`, [uid, name])
    }
    if (next === undefined) this.machines.delete(key)
    else this.machines.set(key, next)
  }

  #takePlacement(
    uid: string,
    next: Placement | undefined,
    writer: string,
    fence: number | undefined,
  ): void {
    const before = this.placements.get(uid)
    for (const one of [before, next]) if (one !== undefined) this.#reserved.delete(one.host)
    if (next === undefined) {
      this.placements.delete(uid)
      this.#world.tell(writer, `removes the placement of ${uid}`)
      return
    }
    this.placements.set(uid, next)
    const { state, host, epoch } = next
    const by = fence === undefined ? '' : `, decided in term ${fence}`
    this.#world.tell(
      writer,
      `${uid}: ${before?.state ?? 'none'} -> ${state} on ${host}#${epoch}${by}`,
    )
    this.#checkStep(before, next, writer, fence)
    if (takesRoom(next)) this.#checkRoom(uid, host)
  }

  #checkStep(
    before: Placement | undefined,
    next: Placement,
    writer: string,
    fence: number | undefined,
  ): void {
    const { uid, state, host } = next
    const violate = (text: string) =>
      this.#world.violate(`${text}: ${uid}, ${before?.state ?? 'none'} -> ${state}`, [uid, host])
    if (hostsOwn.includes(state) && writer !== host) violate(`${writer} writes what is ${host}'s`)
    if (state === 'Assigned' && fence === undefined) violate('assigned by nobody who leads')
    const waits = before !== undefined && isAnchored(before) && before.onHostLoss === 'Wait'
    if (state === 'Lost' && waits && fence !== undefined) violate('a machine that waits was lost')
  }

  #checkRoom(uid: string, host: string): void {
    const allocatable = this.#allocatable.get(host)
    const { cpu, memoryBytes, machines } = this.reserved(host)
    const fits =
      allocatable !== undefined &&
      nanocores(cpu) <= nanocores(allocatable.cpu) &&
      memoryBytes <= allocatable.memoryBytes &&
      machines <= allocatable.machines
    if (fits) return
    const message = `${host} is promised beyond what it has: ${cpu} cores, ${machines} machines`
    this.#world.violate(message, [host, uid])
  }
}

function keyOf(operation: Operation): string {
  if ('put' in operation) return operation.put
  return 'delete' in operation ? operation.delete : operation.deletePrefix
}
