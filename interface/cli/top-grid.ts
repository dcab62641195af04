import type { Host } from '../../resources/host.ts'
import type { Resource } from '../../resources/kind.ts'
import { approximateBytes, parseQuantity } from '../../resources/quantity.ts'
import { hostName } from './kinds.ts'
import { asMachine, phaseOf } from './machine.ts'
import { bar } from './progress.ts'
import type { Grid } from './table.ts'
import { printable } from './text.ts'

const barColumns = 10

function isHost(object: Resource): object is Host {
  return object.kind === hostName.kind
}

/** A part of a whole as a bar with its percentage: `▍          4 %`. */
export function meter(fraction: number | undefined): string {
  if (fraction === undefined || !Number.isFinite(fraction)) return '-'
  return `${bar(fraction, barColumns)} ${String(Math.round(fraction * 100)).padStart(3)} %`
}

function share(part: number | undefined, whole: number | undefined): number | undefined {
  return part === undefined || whole === undefined ? undefined : part / whole
}

function amount(part: number | undefined, whole: number | undefined): string {
  if (part === undefined || whole === undefined) return '-'
  return `${approximateBytes(part)}/${approximateBytes(whole)}`
}

/** What hosts have and what of it is in use. */
export function hostGrid(objects: readonly Resource[]): Grid {
  const headings = ['Name', 'CPU', 'Cores', 'Memory', '', 'Disk', '', 'Load', 'Machines']
  const rows = objects.filter(isHost).map(({ metadata, status }) => {
    const { usage, capacity, reserved } = status ?? {}
    return [
      metadata.name,
      meter(usage?.cpuFraction),
      String(capacity?.cpu ?? '-'),
      meter(share(usage?.memoryBytes, capacity?.memoryBytes)),
      amount(usage?.memoryBytes, capacity?.memoryBytes),
      meter(share(usage?.diskBytes, capacity?.diskBytes)),
      amount(usage?.diskBytes, capacity?.diskBytes),
      usage?.load1.toFixed(2) ?? '-',
      String(reserved?.machines ?? 0),
    ]
  })
  return { headings, rows }
}

/** What virtual machines were promised. */
export function machineGrid(objects: readonly Resource[]): Grid {
  const headings = ['Name', 'Phase', 'Host', 'CPU', 'Memory', 'Restarts']
  const rows = objects
    .map(asMachine)
    .map(machine => [
      machine.metadata.name,
      phaseOf(machine),
      printable(machine.status?.host ?? '') || '-',
      String(machine.spec.cpu),
      approximateBytes(parseQuantity(machine.spec.memory) ?? 0),
      String(machine.status?.restarts ?? 0),
    ])
  return { headings, rows }
}
