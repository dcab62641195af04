import { findCondition } from '../../resources/condition.ts'
import { parseDurationMs } from '../../resources/duration.ts'
import type { Host } from '../../resources/host.ts'
import type { Image } from '../../resources/image.ts'
import {
  restartedAtAnnotation,
  startedAtAnnotation,
  type VirtualMachine,
  virtualMachineKind,
} from '../../resources/virtual-machine.ts'
import type { FactsView } from '../fleet/facts.ts'
import type { Member } from '../fleet/member.ts'
import { isAnchored, type Placement } from '../fleet/placement.ts'
import { requestOf } from '../scheduler/amounts.ts'
import type { HostView, Placed, Refusal, Wanted } from '../scheduler/types.ts'
import type { MachineSituation } from './decide.ts'

/** The most macOS guests of a host, when nothing else was said (Apple's licence allows two). */
const macosGuestsMost = 2

/** What a host looks like to the scheduler. */
export function hostViewOf(
  host: Host,
  leased: boolean,
  member: Member | undefined,
  facts: FactsView,
): HostView | undefined {
  const { status, spec, metadata } = host
  if (status?.allocatable === undefined) return undefined
  const { name } = metadata
  const arch = status.arch ?? 'x86_64'
  const held = new Set(status.images ?? [])
  return {
    name,
    labels: { ...(member?.rack && { rack: member.rack }), arch, ...metadata.labels },
    taints: spec.taints ?? [],
    schedulable: spec.schedulable && spec.drain !== true,
    ready: leased && findCondition(status.conditions, 'Ready')?.status === 'True',
    allocatable: status.allocatable,
    arch,
    macosGuestsMost: host.spec.macosGuests ?? macosGuestsMost,
    mayHoldImage: digest => held.has(digest) || facts.of(name)?.mayHoldImage(digest) === true,
  }
}

/** What a machine that wants a place looks like to the scheduler. */
export function wantedOf(
  machine: VirtualMachine,
  placement: Placement | undefined,
  image: Image | undefined,
  refusals: readonly Refusal[],
): Wanted {
  const { metadata, spec } = machine
  const { uid = '', namespace = '', name, creationTimestamp = '' } = metadata
  const anchored = placement !== undefined && isAnchored(placement)
  // A machine that wakes up waits since then; one that was lost or refused, since it is there.
  const since = placement?.state === 'Waking' ? placement.changedAt : creationTimestamp
  const digest = image?.status?.digest
  const bytes = image?.status?.sizeBytes
  return {
    uid,
    namespace,
    name,
    priority: spec.priority,
    sinceMs: Date.parse(since) || 0,
    request: placement?.state === 'Waking' ? placement.request : requestOf(machine),
    machine: spec.machine,
    arch: image?.spec.arch ?? 'x86_64',
    hostSelector: spec.hostSelector,
    tolerations: spec.tolerations,
    group: groupOf(machine),
    spread: spec.spread,
    ...(anchored && { anchor: placement.host }),
    ...(digest !== undefined && { image: { digest, ...(bytes !== undefined && { bytes }) } }),
    ...(refusals.length > 0 && { refusals }),
  }
}

/** Of which machines it is a copy: of one owner, of one generateName, else of one image. */
function groupOf({ metadata, spec }: VirtualMachine): string {
  const owner = metadata.ownerReferences?.find(({ controller }) => controller === true)
  const of = owner?.uid ?? metadata.generateName ?? spec.image
  return `${metadata.namespace}/${of}`
}

/** What a machine that takes room looks like to the scheduler. */
export function placedOf(placement: Placement, machine: VirtualMachine | undefined): Placed {
  const { uid, host, request, namespace } = placement
  const group = machine === undefined ? `${namespace}/` : groupOf(machine)
  return { uid, host, request, machine: placement.machine, group }
}

/** What of a machine matters for its next step. */
export function machineSituationOf(machine: VirtualMachine, nowMs: number): MachineSituation {
  const { metadata, spec, status } = machine
  const deleting = metadata.deletionTimestamp !== undefined
  const runs = spec.powerState === 'Running'
  const lifeMs = spec.ttl === undefined ? undefined : parseDurationMs(spec.ttl)
  const bornMs = Date.parse(metadata.creationTimestamp ?? '')
  const hasEnd = lifeMs !== undefined && !Number.isNaN(bornMs)
  return {
    wanted: deleting ? 'Gone' : runs ? 'Run' : 'Rest',
    isOver: isOver(machine),
    held: metadata.finalizers?.includes(virtualMachineKind.finalizer ?? '') ?? false,
    ...(status?.host !== undefined && { host: status.host }),
    ...(hasEnd && { lifeLeftMs: bornMs + lifeMs - nowMs }),
  }
}

/** As its host decides it (restartPolicy), from what its host last told. */
function isOver({ metadata, spec, status }: VirtualMachine): boolean {
  const exit = status?.lastExit
  if (exit === undefined) return false
  const asked = [startedAtAnnotation, restartedAtAnnotation].map(name =>
    Date.parse(metadata.annotations?.[name] ?? ''),
  )
  if (asked.some(timeMs => timeMs > Date.parse(exit.time))) return false
  if (spec.restartPolicy === 'Always') return false
  return exit.reason === 'GuestPoweredOff' || spec.restartPolicy === 'Never'
}
