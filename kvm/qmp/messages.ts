import { type QmpEvent, toEvent } from './events.ts'

/** What QEMU sent (docs/interop/qmp-spec, section 2), taken apart. */
export type QmpMessage =
  | { kind: 'greeting'; version: string }
  | { kind: 'answer'; id: number; returned: unknown }
  | { kind: 'refusal'; id: number; errorClass: string; detail: string }
  | { kind: 'event'; event: QmpEvent }

/** Sentences and names from the peer that we keep are cut at this length. */
const textLengthMax = 2000

/**
 * Reads one line from QEMU.
 * @returns undefined when it is none of the four messages that the protocol knows
 */
export function parseMessage(line: string): QmpMessage | undefined {
  let message: unknown
  try {
    message = JSON.parse(line)
  } catch {
    return undefined
  }
  if (!isRecord(message)) return undefined
  if ('event' in message) return parseEvent(message)
  if ('QMP' in message) return parseGreeting(message['QMP'])
  const id = message['id']
  if (typeof id !== 'number') return undefined
  if ('return' in message) return { kind: 'answer', id, returned: message['return'] }
  if ('error' in message) return parseRefusal(id, message['error'])
  return undefined
}

function parseGreeting(greeting: unknown): QmpMessage | undefined {
  if (!isRecord(greeting) || !isRecord(greeting['version'])) return undefined
  const version = greeting['version']['qemu']
  if (!isRecord(version)) return undefined
  const parts = [version['major'], version['minor'], version['micro']]
  if (!parts.every(part => Number.isSafeInteger(part))) return undefined
  return { kind: 'greeting', version: parts.join('.') }
}

function parseRefusal(id: number, error: unknown): QmpMessage | undefined {
  if (!isRecord(error)) return undefined
  const { class: errorClass, desc } = error
  if (typeof errorClass !== 'string' || typeof desc !== 'string') return undefined
  return {
    kind: 'refusal',
    id,
    errorClass: errorClass.slice(0, textLengthMax),
    detail: desc.slice(0, textLengthMax),
  }
}

function parseEvent(message: Record<string, unknown>): QmpMessage | undefined {
  const { event, data, timestamp } = message
  if (typeof event !== 'string' || !isRecord(timestamp)) return undefined
  const { seconds, microseconds } = timestamp
  if (typeof seconds !== 'number' || typeof microseconds !== 'number') return undefined
  // QEMU says -1 for both when the host's clock could not be read.
  const timestampMs = seconds < 0 ? 0 : seconds * 1000 + Math.floor(microseconds / 1000)
  return { kind: 'event', event: toEvent(event.slice(0, textLengthMax), data ?? {}, timestampMs) }
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
