/** Grows when messages between peers get more fields. There is no other kind of change. */
export const protocolNumber = 1

/** What two hosts say to each other first. */
export interface Hello {
  fleetId: string
  era: number
  /** Of macfleet. */
  version: string
  protocol: number
  /** What the host calls itself: for the log. Its name is the one in the member list. */
  host: string
}

/** Why a host is not talked to. */
export type Refusal = 'OtherFleet' | 'LowerEra'

const longestHello = 1024
const longestText = 256

/** As bytes: JSON, to which fields may be added. */
export function encodeHello(hello: Hello): Uint8Array {
  return Buffer.from(JSON.stringify(hello))
}

/** What a peer said; undefined when it makes no sense. Fields that are not known are ignored. */
export function decodeHello(bytes: Uint8Array): Hello | undefined {
  if (bytes.length > longestHello) return undefined
  let said: unknown
  try {
    said = JSON.parse(Buffer.from(bytes).toString('utf8'))
  } catch {
    return undefined
  }
  if (typeof said !== 'object' || said === null) return undefined
  const { fleetId, era, version, protocol, host } = said as Record<string, unknown>
  if (!isText(fleetId) || !isText(version) || !isText(host)) return undefined
  if (!isCount(era) || !isCount(protocol)) return undefined
  return { fleetId, era, version, protocol, host }
}

function isText(value: unknown): value is string {
  return typeof value === 'string' && value.length <= longestText
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && Number(value) >= 0
}

/** Whether a host may be talked to. A higher era than ours is his to refuse, and ours to report. */
export function refusalOf(own: Hello, other: Hello): Refusal | undefined {
  if (other.fleetId !== own.fleetId) return 'OtherFleet'
  return other.era < own.era ? 'LowerEra' : undefined
}
