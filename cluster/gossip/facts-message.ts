import type { Amounts } from '../../resources/host.ts'
import type { HostFacts } from '../fleet/facts.ts'
import { bytesField, type Fields, numberField, numberIn, readFields } from './fields.ts'
import { filterBytes, filterOf } from './image-filter.ts'

/** What a host measures of itself. */
export interface OwnFacts extends Omit<HostFacts, 'host' | 'mayHoldImage' | 'receivedAtMs'> {
  /** The digests of the images that it holds (sha256:...). */
  imageDigests: readonly string[]
}

/** What a message says. */
export interface FactsMessage extends Omit<OwnFacts, 'imageDigests'> {
  /** Grows with every message of a host, over restarts too: a lower one is an older one. */
  sequence: number
  /** A Bloom filter of its images. */
  images: Uint8Array
}

/** The first byte. Another one is another message altogether; fields are added without. */
const format = 1
/** No sequence is greater, so that there is always one to come. */
export const greatestSequence = 2 ** 52

/** What the fields are, by their numbers. A number is never used for something else. */
const field = {
  sequence: 1,
  version: 2,
  ready: 3,
  allocatable: 4,
  reserved: 5,
  cpuFraction: 6,
  load1: 7,
  memoryUsedBytes: 8,
  diskFreeBytes: 9,
  images: 10,
} as const

const amountField = { cpu: 1, memoryBytes: 2, diskBytes: 3, machines: 4 } as const
/** Fractions are sent as whole thousandths. */
const thousand = 1000
const longestVersion = 32

/** Fills `images` from the digests. */
export function messageOf(sequence: number, own: OwnFacts): FactsMessage {
  const { imageDigests, ...facts } = own
  return { ...facts, sequence, images: filterOf(imageDigests) }
}

/** At most 303 bytes, whatever it says; fractions are kept to a thousandth. */
export function encodeFacts(message: FactsMessage): Uint8Array {
  return Buffer.concat([
    Uint8Array.of(format),
    numberField(field.sequence, message.sequence),
    bytesField(field.version, Buffer.from(message.version).subarray(0, longestVersion)),
    numberField(field.ready, message.ready ? 1 : 0),
    bytesField(field.allocatable, encodeAmounts(message.allocatable)),
    bytesField(field.reserved, encodeAmounts(message.reserved)),
    numberField(field.cpuFraction, Math.round(message.cpuFraction * thousand)),
    numberField(field.load1, Math.round(message.load1 * thousand)),
    numberField(field.memoryUsedBytes, message.memoryUsedBytes),
    numberField(field.diskFreeBytes, message.diskFreeBytes),
    bytesField(field.images, message.images),
  ])
}

/** What the bytes say; undefined when it makes no sense. Fields that are not known are skipped. */
export function decodeFacts(bytes: Uint8Array): FactsMessage | undefined {
  const fields = bytes[0] === format ? readFields(bytes.subarray(1)) : undefined
  if (fields === undefined) return undefined
  const number = (name: keyof typeof field): number | undefined => numberIn(fields.get(field[name]))
  const sequence = number('sequence')
  const version = fields.get(field.version)
  const images = fields.get(field.images)
  const allocatable = decodeAmounts(fields.get(field.allocatable))
  const reserved = decodeAmounts(fields.get(field.reserved))
  if (sequence === undefined || sequence > greatestSequence) return undefined
  if (version === undefined || version.length > longestVersion) return undefined
  if (images?.length !== filterBytes) return undefined
  if (allocatable === undefined || reserved === undefined) return undefined
  return {
    sequence,
    // It is shown to people: printable characters only.
    version: Buffer.from(version)
      .toString('latin1')
      .replace(/[^\x20-\x7e]/g, '?'),
    ready: number('ready') === 1,
    allocatable,
    reserved,
    cpuFraction: Math.min(1, (number('cpuFraction') ?? 0) / thousand),
    load1: (number('load1') ?? 0) / thousand,
    memoryUsedBytes: number('memoryUsedBytes') ?? 0,
    diskFreeBytes: number('diskFreeBytes') ?? 0,
    // A copy: what it was cut from is a whole packet.
    images: Uint8Array.from(images),
  }
}

function encodeAmounts({ cpu, memoryBytes, diskBytes, machines }: Amounts): Uint8Array {
  return Buffer.concat([
    numberField(amountField.cpu, Math.round(cpu * thousand)),
    numberField(amountField.memoryBytes, memoryBytes),
    numberField(amountField.diskBytes, diskBytes),
    numberField(amountField.machines, machines),
  ])
}

function decodeAmounts(bytes: Uint8Array | undefined): Amounts | undefined {
  const fields: Fields | undefined = bytes === undefined ? undefined : readFields(bytes)
  const cpu = numberIn(fields?.get(amountField.cpu))
  const memoryBytes = numberIn(fields?.get(amountField.memoryBytes))
  const diskBytes = numberIn(fields?.get(amountField.diskBytes))
  const machines = numberIn(fields?.get(amountField.machines))
  if (cpu === undefined || memoryBytes === undefined) return undefined
  if (diskBytes === undefined || machines === undefined) return undefined
  return { cpu: cpu / thousand, memoryBytes, diskBytes, machines }
}
