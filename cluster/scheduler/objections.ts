import { type Obstacle, obstacle } from './obstacle.ts'
import type { HostView, Needs, Taint, Toleration } from './types.ts'

/**
 * Everything but room that keeps a machine off a host where its disk is not. Where its disk is
 * this is not asked: cordoning a host ends nothing (as in Kubernetes, "Taints and Tolerations").
 */
export function objections(needs: Needs, host: HostView): Obstacle[] {
  const found: Obstacle[] = []
  if (!host.ready) found.push(obstacle(notReady))
  if (needs.arch !== host.arch) {
    const text = `it is ${host.arch}, the machine is for ${needs.arch}`
    found.push({ kind: 'arch', text, common: () => `the machine is for ${needs.arch}` })
  }
  for (const flag of needs.cpuFlags ?? []) {
    if (host.cpuFlags?.has(flag)) continue
    found.push(obstacle(`its processor is not known to have ${flag}`))
  }
  if (!host.schedulable) found.push(obstacle('it takes no new machines (cordoned)'))
  return [...found, ...labelObjections(needs, host), ...taintObjections(needs, host)]
}

/** Of a host that can't run machines now. */
export const notReady = 'it is not ready'

function labelObjections({ hostSelector = {} }: Needs, { labels }: HostView): Obstacle[] {
  const found: Obstacle[] = []
  for (const [label, value] of Object.entries(hostSelector)) {
    if (labels[label] === value) continue
    const wanted = `the label ${label} must be ${value}`
    const has = labels[label] === undefined ? 'has none' : `has ${labels[label]}`
    found.push({ kind: wanted, text: `${wanted}, it ${has}`, common: () => wanted })
  }
  return found
}

function taintObjections({ tolerations }: Needs, { taints }: HostView): Obstacle[] {
  const found: Obstacle[] = []
  for (const taint of taints) {
    if (taint.effect !== 'NoSchedule' || tolerated(tolerations, taint)) continue
    const value = taint.value === undefined ? '' : `=${taint.value}`
    found.push(obstacle(`the taint ${taint.key}${value} is not tolerated`))
  }
  return found
}

/** Whether one of the tolerations answers a taint. */
export function tolerated(tolerations: readonly Toleration[] = [], taint: Taint): boolean {
  return tolerations.some(toleration => tolerates(toleration, taint))
}

/** Without a key every taint is meant, without an effect every effect. */
function tolerates({ key, operator, value, effect }: Toleration, taint: Taint): boolean {
  if (effect !== undefined && effect !== taint.effect) return false
  if (key === undefined) return operator === 'Exists'
  if (key !== taint.key) return false
  return operator === 'Exists' || (value ?? '') === (taint.value ?? '')
}
