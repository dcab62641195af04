import type { OwnFacts } from './facts-message.ts'

/** What must differ to be worth a message before it is due anyway. */
const enough = {
  /** Of all cores. */
  cpuFraction: 0.1,
  /** Of what guests may have. */
  roomFraction: 0.05,
  load1: 2,
}

/** Whether what a host is now differs from what it said so much that others should know at once. */
export function differsEnough(said: OwnFacts, now: OwnFacts): boolean {
  if (said.ready !== now.ready || said.version !== now.version) return true
  if (!isEqual(said.allocatable, now.allocatable) || !isEqual(said.reserved, now.reserved)) {
    return true
  }
  if (!isEqual([...said.imageDigests].sort(), [...now.imageDigests].sort())) return true
  const { memoryBytes, diskBytes } = now.allocatable
  return (
    Math.abs(said.cpuFraction - now.cpuFraction) >= enough.cpuFraction ||
    Math.abs(said.load1 - now.load1) >= enough.load1 ||
    isFar(said.memoryUsedBytes, now.memoryUsedBytes, memoryBytes) ||
    isFar(said.diskFreeBytes, now.diskFreeBytes, diskBytes)
  )
}

function isFar(before: number, now: number, whole: number): boolean {
  return before !== now && Math.abs(before - now) >= enough.roomFraction * whole
}

function isEqual(one: object, other: object): boolean {
  return JSON.stringify(Object.entries(one).sort()) === JSON.stringify(Object.entries(other).sort())
}
