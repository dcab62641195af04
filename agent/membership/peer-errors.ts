import { errorTable } from '../../base/error-table.ts'
import { type ErrorCode, failure, MacfleetError } from '../../base/errors.ts'

/** An error as it goes from host to host. */
export interface ErrorAnswer {
  code: ErrorCode
  values: Record<string, string | number>
  message: string
}

/** What another host is told of an error of ours. */
export function answerOf(error: MacfleetError): ErrorAnswer {
  return { code: error.code, values: { ...error.values }, message: error.message }
}

const longest = 500

/** The error that another host told; whatever it says is text and nothing more. */
export function errorOf(status: number, body: unknown, address: string): MacfleetError {
  const { code, values } = isRecord(body) ? body : {}
  if (typeof code !== 'string' || !Object.hasOwn(errorTable, code) || !isRecord(values)) {
    return failure('fleetUnreachable', { detail: `${address} answered with status ${status}` })
  }
  const taken = Object.entries(values).flatMap(([name, value]): [string, string | number][] => {
    if (typeof value === 'number') return [[name, value]]
    // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what must not get through
    const plain = String(value).replace(/[\x00-\x1f\x7f-\x9f]/g, ' ')
    return [[name, plain.slice(0, longest)]]
  })
  return new MacfleetError(code as ErrorCode, Object.fromEntries(taken.slice(0, 16)))
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
