import { failure, type MacfleetError } from '../base/errors.ts'
import { inspectQcow2, type Qcow2Facts } from './inspect-qcow2.ts'
import { describeFormat, type OtherFormat, recogniseFormat } from './recognise-format.ts'
import { type Refusal, refuse } from './refusal.ts'

/** The format a file is said to be in; `auto` asks our own inspector, never a QEMU tool. */
export type StatedFormat = 'raw' | 'qcow2' | 'auto'

/** What an inspected file is, or why it is not taken. */
export type Inspection = RawFacts | Qcow2Facts | Refusal

/** A file whose bytes are the disk's bytes. */
export interface RawFacts {
  format: 'raw'
  virtualSizeBytes: number
}

/** How a file is inspected. */
export interface InspectionInit {
  format: StatedFormat
  /** Size of the whole file. */
  fileBytes: number
  /** Virtual size that is taken at most; see Limits.diskBytes. */
  diskBytes: number
}

/**
 * Bytes of a file's beginning that `inspectHeader` wants, if there are so many: qcow2's largest
 * cluster.
 */
export const inspectedBytes = 2 * 1024 * 1024

const sectorBytes = 512

/**
 * Reads the header of a file from outside before any tool of QEMU opens it. Pure, and bounded by
 * the size of `head`. A raw file is whatever is stated to be raw, or begins like nothing that is
 * known: its size is all that is looked at.
 * @param head the first `inspectedBytes` of the file, or all of it when it is smaller
 */
export function inspectHeader(head: Buffer, init: InspectionInit): Inspection {
  if (init.fileBytes === 0) return refuse('empty', 'it has no bytes')
  const format = init.format === 'raw' ? 'raw' : recogniseFormat(head)
  if (format === 'qcow2') return inspectQcow2(head, init)
  if (init.format === 'qcow2') {
    return refuse('notQcow2', 'it is said to be qcow2 and does not begin like one')
  }
  if (format !== 'raw') return refuseFormat(format)
  return inspectRaw(init)
}

function inspectRaw({ fileBytes, diskBytes }: InspectionInit): Inspection {
  if (fileBytes % sectorBytes !== 0) {
    return refuse(
      'sizeNotWholeSectors',
      `its ${fileBytes} bytes are not a whole number of ${sectorBytes}-byte sectors`,
      'It may be cut short, or not be a disk at all',
    )
  }
  if (fileBytes > diskBytes) {
    return refuse('tooLarge', `its ${fileBytes} bytes are more than the limit of ${diskBytes}`)
  }
  return { format: 'raw', virtualSizeBytes: fileBytes }
}

/** The refusal of a format that is known and not taken. */
export function refuseFormat(format: OtherFormat): Refusal {
  const { detail, advice } = describeFormat(format)
  return refuse(format, detail, advice)
}

/** The error that a refusal reaches the user as. */
export function refusalFailure({ refusal, detail, advice }: Refusal): MacfleetError {
  return failure('imageRefused', { refusal, detail, advice })
}
