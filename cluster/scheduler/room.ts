import { nanocores } from './amounts.ts'
import type { Needs } from './types.ts'

/** Amounts in whole numbers, so that what is added and taken away leaves nothing behind. */
export interface Room {
  nanocores: number
  memoryBytes: number
  machines: number
  macosGuests: number
}

/** What a machine takes. */
export function roomFor({ request, machine }: Pick<Needs, 'request' | 'machine'>): Room {
  return {
    nanocores: nanocores(request.cpu),
    memoryBytes: request.memoryBytes,
    machines: request.machines,
    macosGuests: machine === 'macos' ? 1 : 0,
  }
}

/** Adds to what is there, or takes away with `times` -1. */
export function addRoom(total: Room, room: Room, times = 1): void {
  total.nanocores += times * room.nanocores
  total.memoryBytes += times * room.memoryBytes
  total.machines += times * room.machines
  total.macosGuests += times * room.macosGuests
}

/** Nothing. */
export const noRoom = (): Room => ({ nanocores: 0, memoryBytes: 0, machines: 0, macosGuests: 0 })

/** Whether nothing is taken. */
export function isNothing({ nanocores, memoryBytes, machines }: Room): boolean {
  return nanocores === 0 && memoryBytes === 0 && machines === 0
}
