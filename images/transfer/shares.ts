/** Chunks that belong together: neighbours in a pack, had with one request. */
export interface Groups {
  /** Chunks of a group; the last may have fewer. */
  chunks: number
  count: number
}

/** Which groups each of some hosts brings from outside (a registry, a library). */
export interface Shares {
  /** Groups of a host, those it takes first at the front. */
  of(host: string): readonly number[]
  /** Who takes a group when its owner does not, of those given to `divide`. */
  heirOf(group: number): string
}

const mostGroupChunks = 8
const groupsWanted = 512

/**
 * The same on every host, whatever hosts it knows of: it depends on the image alone. Groups are
 * small where chunks are few, so that each of many hosts has a share.
 */
export function groupChunks(chunkCount: number): Groups {
  const fitting = Math.floor(chunkCount / groupsWanted)
  const chunks = Math.max(1, Math.min(mostGroupChunks, fitting))
  return { chunks, count: Math.ceil(chunkCount / chunks) }
}

/**
 * Divides groups among hosts without a word between them, by rendezvous: each host has a score for
 * each group, made of their names, and the highest takes it. A host that comes or goes moves only
 * what it takes or had. Each begins with what it scores highest for; who helps begins at the end.
 */
export function divide(groupCount: number, hosts: readonly string[]): Shares {
  const names = [...new Set(hosts)].sort()
  const seeds = names.map(hashOf)
  const shares = names.map((): { group: number; score: number }[] => [])
  const heirs = new Uint16Array(groupCount)
  for (let group = 0; group < groupCount; group++) {
    let [first, second] = [0, 0]
    let [best, next] = [-1, -1]
    for (const [host, seed] of seeds.entries()) {
      const score = mix(seed, group)
      if (score > best) {
        ;[second, next] = [first, best]
        ;[first, best] = [host, score]
      } else if (score > next) {
        ;[second, next] = [host, score]
      }
    }
    heirs[group] = second
    shares[first]?.push({ group, score: best })
  }
  const ordered = new Map(
    names.map((name, at) => [
      name,
      (shares[at] ?? []).sort((a, b) => b.score - a.score).map(({ group }) => group),
    ]),
  )
  return {
    of: host => ordered.get(host) ?? [],
    heirOf: group => names[heirs[group] ?? 0] ?? '',
  }
}

/** FNV-1a, 32 bits: spreads names, no more is asked of it. */
function hashOf(text: string): number {
  let hash = 0x811c9dc5
  for (const byte of Buffer.from(text)) hash = Math.imul(hash ^ byte, 0x01000193) >>> 0
  return hash
}

/** The score of a host for a group, 32 bits (the finaliser of splitmix32). */
function mix(seed: number, group: number): number {
  let mixed = (seed ^ Math.imul(group + 1, 0x9e3779b9)) >>> 0
  mixed = Math.imul(mixed ^ (mixed >>> 16), 0x21f0aaad)
  mixed = Math.imul(mixed ^ (mixed >>> 15), 0x735a2d97)
  return (mixed ^ (mixed >>> 15)) >>> 0
}
