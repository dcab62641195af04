import { errorTable } from './error-table.ts'

/** Every error that a user can meet, by name. */
export type ErrorCode = keyof typeof errorTable

type Placeholder<Sentence extends string> = Sentence extends `${string}{${infer Name}}${infer Rest}`
  ? Name | Placeholder<Rest>
  : never

type Entry<Code extends ErrorCode> = (typeof errorTable)[Code]

/** What the sentence and the advice of an error are filled in with. */
export type ErrorValues<Code extends ErrorCode> = {
  [Name in Placeholder<Entry<Code>['sentence'] | Entry<Code>['next']>]: string | number
}

/** One field that was wrong: its path in the object and what is wrong with it. */
export interface ErrorCause {
  field: string
  message: string
}

/** The object an error is about, as Kubernetes' Status names it. */
export interface ErrorObject {
  kind?: string
  group?: string
  name?: string
  uid?: string
}

/** More about an error than its sentence. */
export interface ErrorExtras {
  /** What was thrown underneath. */
  cause?: unknown
  /** The fields at fault. */
  causes?: ErrorCause[]
  /** The object at fault. */
  object?: ErrorObject
}

/** An error from the table: a code for programs, a sentence and what to do next for people. */
export class MacfleetError extends Error {
  readonly code: ErrorCode
  /** Kubernetes' machine-readable reason (metav1.StatusReason). */
  readonly reason: string
  readonly httpStatus: number
  /** What the user can do about it. */
  readonly next: string
  readonly causes: readonly ErrorCause[]
  readonly object: ErrorObject
  /** What the sentence was filled in with: with it another process can make the same error again. */
  readonly values: Readonly<Record<string, string | number>>

  constructor(code: ErrorCode, values: Record<string, string | number>, extras: ErrorExtras = {}) {
    const entry = errorTable[code]
    const sentence = fill(entry.sentence, values)
    const next = fill(entry.next, values)
    super(next === '' ? sentence : `${sentence}. ${next}`, { cause: extras.cause })
    this.name = 'MacfleetError'
    this.code = code
    this.reason = entry.reason
    this.httpStatus = entry.httpStatus
    this.next = next
    this.causes = extras.causes ?? []
    this.object = extras.object ?? {}
    this.values = values
  }
}

function fill(template: string, values: Record<string, string | number>): string {
  return template.replace(/\{(\w+)\}/g, (_, name: string) => String(values[name]))
}

/**
 * Makes an error of the table.
 * @param values one value for each `{name}` in the sentence and the advice
 */
export function failure<Code extends ErrorCode>(
  code: Code,
  values: ErrorValues<Code>,
  extras?: ErrorExtras,
): MacfleetError {
  return new MacfleetError(code, values, extras)
}

/** Whether `thrown` is the table's error `code`. */
export function isFailure(thrown: unknown, code: ErrorCode): thrown is MacfleetError {
  return thrown instanceof MacfleetError && thrown.code === code
}

/** Fails when our own reasoning was wrong: a mistake of the program, never of its input. */
export function assert(condition: unknown, message: string): asserts condition {
  if (!condition) throw new Error(`assertion failed: ${message}`)
}

/** What a caught value says of itself, for a log field or a condition's message. */
export function messageOf(thrown: unknown): string {
  return thrown instanceof Error ? thrown.message : String(thrown)
}
