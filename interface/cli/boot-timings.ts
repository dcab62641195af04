import type { VirtualMachine } from '../../resources/virtual-machine.ts'

/** One step of a boot and when it was reached, in milliseconds from the request to start. */
export interface BootStep {
  label: string
  atMs: number
}

const steps = [
  ['spawnedMs', 'QEMU started'],
  ['firmwareMs', 'firmware'],
  ['firstConsoleByteMs', 'first console byte'],
  ['agentMs', 'guest agent'],
  ['sshMs', 'SSH'],
] as const

/** The steps that were reached, in order of time. */
export function bootSteps(machine: VirtualMachine): BootStep[] {
  const timings = machine.status?.bootTimings ?? {}
  return steps
    .flatMap(([field, label]) => {
      const atMs = timings[field]
      return atMs === undefined ? [] : [{ label, atMs }]
    })
    .sort((a, b) => a.atMs - b.atMs)
}

/** `12 ms`, `1.25 s`. */
export function formatSpan(spanMs: number): string {
  return spanMs < 1000 ? `${Math.round(spanMs)} ms` : `${(spanMs / 1000).toFixed(2)} s`
}

/** The last step that was reached; empty before the first. */
export function timingsText(machine: VirtualMachine): string {
  const last = bootSteps(machine).at(-1)
  return last === undefined ? '' : `${last.label} after ${formatSpan(last.atMs)}`
}

/**
 * The boot as a picture: one line per step, its span drawn to scale after those before it.
 * @param columns of the whole span
 */
export function bootPicture(machine: VirtualMachine, columns: number): string[] {
  const reached = bootSteps(machine)
  const totalMs = Math.max(1, reached.at(-1)?.atMs ?? 0)
  const labelColumns = Math.max(0, ...reached.map(step => step.label.length))
  const scale = (atMs: number) => Math.round((atMs / totalMs) * columns)
  return reached.map((step, index) => {
    const fromMs = reached[index - 1]?.atMs ?? 0
    const from = scale(fromMs)
    const span = Math.max(1, scale(step.atMs) - from)
    // A step that took no column is drawn as one, within the picture.
    const start = Math.min(from, columns - span)
    const drawing = `${' '.repeat(start)}${'━'.repeat(span)}`.padEnd(columns)
    return `${step.label.padEnd(labelColumns)}  ${drawing}  ${formatSpan(step.atMs)}`
  })
}
