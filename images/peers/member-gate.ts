import type { ServerHttp2Session } from 'node:http2'
import type { TLSSocket } from 'node:tls'
import type { Clock } from '../../base/clock.ts'

/** Says whose a certificate (DER) is: a member's name, or undefined for anybody else's. */
export type FindMember = (certificate: Uint8Array) => Promise<string | undefined>

/** Asks who is at the other end of a session, and ends it when that is no member. */
export interface MemberGate {
  /**
   * The member's name, asked anew when the answer is older than a moment.
   * @throws when it is none: the session is then ended already
   */
  check(): Promise<string>
  /** The members have changed: asks at once, and ends the session unless it is still one. */
  recheck(): void
}

/** An answer counts so long. */
const answerMs = 2_000

/** The gate of one session. */
export function createMemberGate(
  session: ServerHttp2Session,
  { clock, findMember }: { clock: Clock; findMember: FindMember },
): MemberGate {
  const certificate = (session.socket as TLSSocket).getPeerX509Certificate?.()?.raw
  let asked: { atMs: number; name: Promise<string> } | undefined
  const ask = async (): Promise<string> => {
    const name = certificate && (await findMember(certificate).catch(() => undefined))
    if (name !== undefined) return name
    session.destroy()
    throw new Error('no member is at the other end')
  }
  const check = (): Promise<string> => {
    const nowMs = clock.monotonicMs()
    if (asked === undefined || nowMs - asked.atMs > answerMs) asked = { atMs: nowMs, name: ask() }
    return asked.name
  }
  return {
    check,
    recheck() {
      asked = undefined
      check().catch(() => {})
    },
  }
}
