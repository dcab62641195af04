import type { JsonValue } from '../../base/json.ts'
import {
  type ExplainComponents,
  type ExplainInit,
  explainPlacement,
} from '../../cluster/leader/explain.ts'
import type { FleetOperations } from '../../interface/api/fleet-operations.ts'

/** Explains placements to the API, as plain data. */
export function explainOperation(
  init: ExplainInit,
  components: ExplainComponents,
): FleetOperations['explain'] {
  return async machine => {
    const explanation = await explainPlacement(machine, init, components)
    return JSON.parse(JSON.stringify(explanation)) as JsonValue
  }
}
