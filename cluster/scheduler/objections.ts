import type { Host } from '../../resources/host.ts'
import type { VirtualMachineSpec } from '../../resources/virtual-machine.ts'

type Taint = NonNullable<Host['spec']['taints']>[number]
type Toleration = NonNullable<VirtualMachineSpec['tolerations']>[number]

/**
 * Why a host does not take a machine that was never started here; empty when it does. A machine
 * that was is not asked again: its disk is here, and cordoning a host ends nothing (as Kubernetes
 * has it, "Taints and Tolerations").
 */
export function objections(spec: VirtualMachineSpec, host: Host): string[] {
  const { labels = {} } = host.metadata
  const found: string[] = []
  if (!host.spec.schedulable) found.push('it takes no new machines (cordoned)')
  for (const [label, value] of Object.entries(spec.hostSelector ?? {})) {
    if (labels[label] === value) continue
    const has = labels[label] === undefined ? 'has none' : `has ${labels[label]}`
    found.push(`the label ${label} must be ${value}, it ${has}`)
  }
  for (const taint of host.spec.taints ?? []) {
    if (taint.effect !== 'NoSchedule') continue
    if ((spec.tolerations ?? []).some(toleration => tolerates(toleration, taint))) continue
    const value = taint.value === undefined ? '' : `=${taint.value}`
    found.push(`the taint ${taint.key}${value} is not tolerated`)
  }
  return found
}

/** Without a key every taint is meant, without an effect every effect. */
function tolerates({ key, operator, value, effect }: Toleration, taint: Taint): boolean {
  if (effect !== undefined && effect !== taint.effect) return false
  if (key === undefined) return operator === 'Exists'
  if (key !== taint.key) return false
  return operator === 'Exists' || (value ?? '') === (taint.value ?? '')
}
