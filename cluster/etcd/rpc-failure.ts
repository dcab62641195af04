import { failure, type MacfleetError } from '../../base/errors.ts'

/** A call that etcd, or the way to it, failed; never leaves this folder and the store. */
export class RpcFailure extends Error {
  /** gRPC's status code. */
  readonly code: number
  constructor(code: number, message: string) {
    super(message)
    this.name = 'RpcFailure'
    this.code = code
  }
}

/** The status codes of gRPC that leave open what became of a call. */
const doubtfulCodes = new Set([1, 2, 4, 13, 14])

/** Said before anything was done: another endpoint, or the same one later, may be asked again. */
const withoutEffect = [
  'etcdserver: no leader',
  'etcdserver: too many requests',
  'etcdserver: rpc not supported for learner',
  'No connection established',
]

/** Definite, though their code says "unavailable" (etcd 3.4 to 3.6). */
const definite = ['etcdserver: unhealthy cluster']

/**
 * What a failed call means: `refused` is etcd's answer; `noEffect` says that nothing was done;
 * after `doubtful` a change may have been made, or may still be made.
 */
export type FailureKind = 'refused' | 'noEffect' | 'doubtful'

/** Tells what a failed call means. */
export function kindOf(error: RpcFailure): FailureKind {
  if (withoutEffect.some(text => error.message.startsWith(text))) return 'noEffect'
  if (definite.includes(error.message)) return 'refused'
  return doubtfulCodes.has(error.code) ? 'doubtful' : 'refused'
}

/** Whether this is etcd's answer with these words (3.6 says more before and after some of them). */
export function isRefusal(error: unknown, words: string): boolean {
  return error instanceof RpcFailure && error.message.includes(words)
}

/** The error of everything that needs etcd while it can't be reached. */
export function etcdUnavailable(detail: string, cause?: unknown): MacfleetError {
  const advice = '`macfleet cluster status` shows which voters are missing'
  return failure('unavailable', { what: 'the store', detail, advice }, { cause })
}
