import { errorTable } from '../../base/error-table.ts'
import { type ErrorCode, failure, MacfleetError, messageOf } from '../../base/errors.ts'
import type { Limits } from '../../base/limits.ts'
import type { SourceDescription } from '../sources/source.ts'
import type { FillProgress, FillRequest, TransferTls } from './transfers.ts'

/** How the thread is started; plain data. */
export interface ThreadInit {
  /** This host's name, as the descriptions of peers have it on other hosts. */
  host: string
  limits: Limits
  /** URL of the module that opens sources (open-source.ts). */
  sourcesModule: string
  tls: TransferTls | undefined
  /** Hosts that served rot before. */
  rotten: readonly string[]
}

/** What the thread is told. `fill` is the number that the main thread gave a filling. */
export type ToTransfer =
  | {
      type: 'fill'
      fill: number
      request: FillRequest
      /** Tells of what is stored already too: an earlier thread died before it could. */
      tellAll: boolean
    }
  | { type: 'sources'; fill: number; sources: SourceDescription[] }
  | { type: 'want'; fill: number; want: FillRequest['want'] }
  | {
      type: 'serve'
      fill: number
      serving: number
      path: string
      owner: { uid: number; gid: number } | undefined
    }
  | { type: 'endServing'; fill: number; serving: number }
  | { type: 'stop'; fill: number }
  | { type: 'tls'; tls: TransferTls | undefined }
  | { type: 'close' }

/** What the thread says. */
export type FromTransfer =
  | { type: 'progress'; fill: number; progress: FillProgress }
  | { type: 'stored'; fill: number; layer: number; chunks: number[] }
  | { type: 'done'; fill: number }
  | { type: 'failed'; fill: number; error: ErrorMessage }
  /** Nothing of it is open any more. */
  | { type: 'stopped'; fill: number }
  | { type: 'serving'; fill: number; serving: number; error?: ErrorMessage }
  | { type: 'servingEnded'; fill: number; serving: number }
  | { type: 'rotten'; host: string }
  | { type: 'log'; level: 'debug' | 'info' | 'warn' | 'error'; fields: object; message: string }
  | { type: 'closed' }

/** An error as it goes from thread to thread. */
export interface ErrorMessage {
  /** Undefined: not one of the table's. */
  code?: ErrorCode
  values: Record<string, string | number>
  message: string
}

/** Says an error to the other thread. */
export function sayError(error: unknown): ErrorMessage {
  if (!(error instanceof MacfleetError)) return { values: {}, message: messageOf(error) }
  return { code: error.code, values: { ...error.values }, message: error.message }
}

/** The error that the other thread said. */
export function hearError({ code, values, message }: ErrorMessage): MacfleetError {
  if (code !== undefined && Object.hasOwn(errorTable, code)) return new MacfleetError(code, values)
  return failure('internal', { detail: message })
}
