import { failure } from '../../base/errors.ts'
import type { RemoveOptions } from '../../cluster/objects.ts'
import { integerParameter, isDryRun, type Query } from './context.ts'
import { isRecord } from './merge-patch.ts'

/** The longest grace period, in seconds; metadata's schema has the same. */
const longestGraceSeconds = 86_400

/**
 * How an object shall be removed: the body's DeleteOptions, or else the query's parameters. Owners
 * are not followed, so propagationPolicy says nothing here yet.
 * @throws badRequest
 */
export function readDeleteOptions(body: unknown, query: Query): RemoveOptions {
  const given = body ?? {}
  if (!isRecord(given)) throw refusal('DeleteOptions must be an object')
  if (given['kind'] !== undefined && given['kind'] !== 'DeleteOptions') {
    throw refusal('the body of a deletion is a DeleteOptions')
  }
  const seconds = given['gracePeriodSeconds'] ?? integerParameter(query, 'gracePeriodSeconds')
  return {
    ...preconditions(given['preconditions']),
    ...(seconds === undefined ? {} : { gracePeriodSeconds: graceSeconds(seconds) }),
    dryRun: isDryRun(query) || bodyDryRun(given['dryRun']),
  }
}

function graceSeconds(value: unknown): number {
  const isWhole = typeof value === 'number' && Number.isInteger(value)
  if (isWhole && value >= 0 && value <= longestGraceSeconds) return value
  throw refusal(`gracePeriodSeconds must be a whole number from 0 to ${longestGraceSeconds}`)
}

function preconditions(value: unknown): Pick<RemoveOptions, 'uid' | 'resourceVersion'> {
  if (value === undefined || value === null) return {}
  if (!isRecord(value)) throw refusal('preconditions must be an object')
  const { uid, resourceVersion } = value
  return {
    ...(uid === undefined ? {} : { uid: asText(uid) }),
    ...(resourceVersion === undefined ? {} : { resourceVersion: asText(resourceVersion) }),
  }
}

function asText(value: unknown): string {
  if (typeof value === 'string') return value
  throw refusal('preconditions must be texts')
}

function bodyDryRun(value: unknown): boolean {
  if (value === undefined || value === null) return false
  if (!Array.isArray(value) || value.some(item => item !== 'All')) {
    throw refusal('dryRun must be a list of All')
  }
  return value.length > 0
}

const refusal = (detail: string) => failure('badRequest', { detail })
