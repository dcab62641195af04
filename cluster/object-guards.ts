import type { Kind } from '../resources/kind.ts'
import type { Guard, ObjectsContext } from './object-types.ts'
import type { Compare } from './store/store.ts'

/**
 * Asks all guards of a kind about a write. What they return is compared in its transaction.
 * @param ask puts the question of that write to one guard
 * @throws what a guard throws to refuse
 */
export async function askGuards(
  context: ObjectsContext,
  kind: Kind,
  ask: (guard: Guard) => Promise<readonly Compare[]> | undefined,
): Promise<Compare[]> {
  const compares: Compare[] = []
  for (const guard of context.guards) {
    if (guard.kind.kind === kind.kind) compares.push(...((await ask(guard)) ?? []))
  }
  return compares
}
