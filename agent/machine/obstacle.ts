import { isFailure } from '../../base/errors.ts'

/** What stands in the way on this host and may not on another. */
const ofThisHost = [
  'hostFull',
  'hostDiskFull',
  'unavailable',
  'machineUnsupported',
  'firmwareMissing',
  'imageContentMissing',
  'diskFull',
  'portTaken',
  'portsExhausted',
  'commandMissing',
] as const

/** Whether a start that failed here may succeed on another host. */
export function isOfThisHost(error: unknown): boolean {
  return ofThisHost.some(code => isFailure(error, code))
}
