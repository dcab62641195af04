import type { GuardedProcess } from '../guardian/protocol.ts'

/**
 * What is known of the guardian's processes. Three sources meet here: its list, the ends that it
 * tells on its own, and the answers to our starts. A list is as old as its request: what was heard
 * of a name since then is newer, and stays.
 */
export class ProcessBook {
  readonly #known = new Map<string, GuardedProcess>()
  /** For each list under way, the names of which something was heard meanwhile. */
  readonly #listings = new Set<Set<string>>()

  get(name: string): GuardedProcess | undefined {
    return this.#known.get(name)
  }

  all(): GuardedProcess[] {
    return [...this.#known.values()]
  }

  set(process: GuardedProcess): void {
    this.#known.set(process.name, process)
    this.#hear(process.name)
  }

  delete(name: string): void {
    this.#known.delete(name)
    this.#hear(name)
  }

  /** Takes over what the guardian lists. @throws what `list` throws; then nothing has changed */
  async refresh(list: () => Promise<GuardedProcess[]>): Promise<void> {
    const heard = new Set<string>()
    this.#listings.add(heard)
    try {
      const listed = await list()
      const names = new Set(listed.map(process => process.name))
      for (const name of this.#known.keys()) {
        if (!names.has(name) && !heard.has(name)) this.#known.delete(name)
      }
      for (const process of listed) {
        if (!heard.has(process.name)) this.#known.set(process.name, process)
      }
    } finally {
      this.#listings.delete(heard)
    }
  }

  #hear(name: string): void {
    for (const heard of this.#listings) heard.add(name)
  }
}
