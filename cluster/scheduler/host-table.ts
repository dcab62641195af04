import { assert } from '../../base/errors.ts'
import { nanocores } from './amounts.ts'
import { hashOf } from './hash.ts'
import { addRoom, isNothing, noRoom, type Room, roomFor } from './room.ts'
import { createRoomIndex, type RoomIndex } from './room-index.ts'
import type { HostView, Placed } from './types.ts'

/** One amount of each host, in the order of slots. */
export type RoomColumns = Record<keyof Room, Float64Array>

/** What is free of each host, in the order of slots: what a decision looks at. */
export interface Columns extends RoomColumns {
  /** 1 / allocatable, to make fractions with; 0 where nothing is allocatable. */
  perNanocore: Float64Array
  perByte: Float64Array
  /** Of the host's name: with it ties are broken, whatever slot the host has. */
  hash: Uint32Array
}

/** The hosts, each in a slot that it keeps, and what is free of each. */
export interface HostTable {
  /** Slots in use lie below; some of them may be empty. */
  readonly size: number
  /** What is free. Replaced when it grows. */
  readonly free: Readonly<Columns>
  /** What there is in all. */
  readonly all: Readonly<RoomColumns>
  /** Slots of hosts that take new machines and could have room for one. */
  candidates: RoomIndex['candidates']
  slotOf(name: string): number | undefined
  at(slot: number): HostView | undefined
  hosts(): Iterable<HostView>
  used(name: string): Readonly<Room>
  /** @returns the slot */
  set(host: HostView): number
  /** @returns the slot that is empty now */
  remove(name: string): number | undefined
  /** A machine takes room on a host, known or not; or gives it back, with `times` -1. */
  take(placed: Placed, times: 1 | -1): void
}

/** A table without hosts. */
export function createHostTable(): HostTable {
  const slots = new Map<string, number>()
  const views: (HostView | undefined)[] = []
  const empty: number[] = []
  const used = new Map<string, Room>()
  const index = createRoomIndex()
  let free = createColumns(16)
  let all = createRoomColumns(16)

  const refresh = (slot: number): void => {
    const host = views[slot]
    if (host === undefined) {
      index.set(slot, undefined)
      return
    }
    const { cpu, memoryBytes, machines } = host.allocatable
    const room = {
      nanocores: nanocores(cpu),
      memoryBytes,
      machines,
      macosGuests: host.macosGuestsMost,
    }
    put(all, slot, room)
    free.perNanocore[slot] = room.nanocores > 0 ? 1 / room.nanocores : 0
    free.perByte[slot] = room.memoryBytes > 0 ? 1 / room.memoryBytes : 0
    addRoom(room, used.get(host.name) ?? noRoom(), -1)
    put(free, slot, room)
    free.hash[slot] = hashOf(host.name)
    index.set(slot, host.ready && host.schedulable ? room : undefined)
  }
  const newSlot = (name: string): number => {
    const slot = empty.pop() ?? views.length
    if (slot >= free.hash.length) {
      free = copied(free, createColumns(2 * slot))
      all = copied(all, createRoomColumns(2 * slot))
    }
    slots.set(name, slot)
    return slot
  }

  return {
    get size() {
      return views.length
    },
    get free() {
      return free
    },
    get all() {
      return all
    },
    candidates: index.candidates,
    slotOf: name => slots.get(name),
    at: slot => views[slot],
    hosts: () => views.filter(view => view !== undefined),
    used: name => used.get(name) ?? noRoom(),
    set(host) {
      const slot = slots.get(host.name) ?? newSlot(host.name)
      views[slot] = host
      refresh(slot)
      return slot
    },
    remove(name) {
      const slot = slots.get(name)
      if (slot === undefined) return undefined
      slots.delete(name)
      views[slot] = undefined
      empty.push(slot)
      refresh(slot)
      return slot
    },
    take(placed, times) {
      const total = used.get(placed.host) ?? noRoom()
      addRoom(total, roomFor(placed), times)
      assert(total.machines >= 0, 'nobody gives back what he did not take')
      if (isNothing(total)) used.delete(placed.host)
      else used.set(placed.host, total)
      const slot = slots.get(placed.host)
      if (slot !== undefined) refresh(slot)
    },
  }
}

function put(columns: RoomColumns, slot: number, room: Room): void {
  columns.nanocores[slot] = room.nanocores
  columns.memoryBytes[slot] = room.memoryBytes
  columns.machines[slot] = room.machines
  columns.macosGuests[slot] = room.macosGuests
}

function createRoomColumns(length: number): RoomColumns {
  const column = () => new Float64Array(length)
  return { nanocores: column(), memoryBytes: column(), machines: column(), macosGuests: column() }
}

function createColumns(length: number): Columns {
  return {
    ...createRoomColumns(length),
    perNanocore: new Float64Array(length),
    perByte: new Float64Array(length),
    hash: new Uint32Array(length),
  }
}

function copied<T extends RoomColumns>(from: T, to: T): T {
  for (const name of Object.keys(from) as (keyof Columns & keyof T)[]) {
    const [target, source] = [to[name], from[name]] as Float64Array[]
    if (target !== undefined && source !== undefined) target.set(source)
  }
  return to
}
