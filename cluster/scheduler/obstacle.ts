import type { Reason } from './types.ts'

/** One thing that keeps a machine off a host. */
export interface Obstacle {
  /** Obstacles of one kind are told together, however their texts differ. */
  kind: string
  /** Of this one host. */
  text: string
  /** How much there is, where too little is the obstacle. */
  free?: number
  /** Of many hosts, of which the best has so much. */
  common(mostFree: number): string
}

/** An obstacle that is the same on every host that has it. */
export function obstacle(text: string): Obstacle {
  return { kind: text, text, common: () => text }
}

interface Group {
  hosts: number
  /** The first of each kind; `free` is the most of all. */
  obstacles: Obstacle[]
  /** Whether a later one said something else. */
  varied: boolean[]
}

/**
 * What keeps a machine off many hosts, in few words: those with the same kinds of obstacles as one.
 * @param most how many reasons are told at most; the rest is one more
 */
export function summarize(hosts: Iterable<readonly Obstacle[]>, most: number): Reason[] {
  const groups = new Map<string, Group>()
  for (const obstacles of hosts) {
    const key = obstacles.map(({ kind }) => kind).join('\n')
    const group = groups.get(key)
    if (group === undefined) {
      groups.set(key, { hosts: 1, obstacles: [...obstacles], varied: obstacles.map(() => false) })
    } else {
      group.hosts++
      obstacles.forEach((found, at) => {
        const before = group.obstacles[at]
        if (before === undefined || before.text === found.text) return
        group.varied[at] = true
        if ((found.free ?? 0) > (before.free ?? 0)) group.obstacles[at] = found
      })
    }
  }
  const reasons = [...groups.values()].map(({ hosts, obstacles, varied }) => {
    const texts = obstacles.map((found, at) =>
      varied[at] ? found.common(found.free ?? 0) : found.text,
    )
    return { hosts, text: texts.join('; ') }
  })
  reasons.sort((one, other) => other.hosts - one.hosts || (one.text < other.text ? -1 : 1))
  const rest = reasons.splice(most).reduce((sum, { hosts }) => sum + hosts, 0)
  return rest === 0 ? reasons : [...reasons, { hosts: rest, text: 'other reasons' }]
}
