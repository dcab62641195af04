import Type, { type Static } from 'typebox'

/** One aspect of an object's state, for machines and people (Kubernetes API conventions, Conditions). */
export const conditionSchema = Type.Object(
  {
    type: Type.String({ maxLength: 64 }),
    status: Type.Enum(['True', 'False', 'Unknown']),
    reason: Type.String({ maxLength: 128, description: 'One word in CamelCase, for programs.' }),
    message: Type.String({ maxLength: 32_768, description: 'A sentence, for people.' }),
    lastTransitionTime: Type.String({ maxLength: 40, description: 'When status last changed.' }),
  },
  { additionalProperties: false },
)

/** A condition of an object. */
export type Condition = Static<typeof conditionSchema>

/** The list with `next` in place of the condition of its type; the time changes only with the status. */
export function withCondition(
  conditions: readonly Condition[],
  next: Omit<Condition, 'lastTransitionTime'>,
  time: string,
): Condition[] {
  const old = conditions.find(condition => condition.type === next.type)
  const lastTransitionTime = old?.status === next.status ? old.lastTransitionTime : time
  const others = conditions.filter(condition => condition.type !== next.type)
  return [...others, { ...next, lastTransitionTime }].sort((a, b) => a.type.localeCompare(b.type))
}

/** The condition of a type, if the object has it. */
export function findCondition(
  conditions: readonly Condition[] | undefined,
  type: string,
): Condition | undefined {
  return conditions?.find(condition => condition.type === type)
}
