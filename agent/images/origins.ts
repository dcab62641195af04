import { type Clock, sleep } from '../../base/clock.ts'
import type { Limits } from '../../base/limits.ts'
import { type Log, messageOf } from '../../base/log.ts'
import { type Random, randomInteger } from '../../base/random.ts'
import type { ImageConfig } from '../../images/image-record.ts'
import type { PeerDescription, SourceDescription } from '../../images/sources/source.ts'
import type { Image } from '../../resources/image.ts'

/** All of an image but its bytes. */
export interface ImageParts {
  config: ImageConfig
  /** Encoded indexes, base first. */
  layers: Buffer[]
  /** As far as a registry said: where each layer's chunks lie in packs, encoded. */
  locations?: Buffer[]
}

/** An image of ours as its source has it. */
export interface FoundImage {
  parts: ImageParts
  digest: string
  /** The source by digest, so that it stands for the same for good. */
  resolved: string
  source: SourceDescription
}

/** From where an image can be had just now. */
export interface ImageOrigin {
  /** Hosts that hold it or to which it is on its way, then where it came from. */
  sources: SourceDescription[]
  /** What the registry or the library said of it, when it was asked and answered. */
  parts?: ImageParts
}

/** Knows from where images can be had. */
export interface ImageOrigins {
  /**
   * A registry that does not answer is left out; one that is slow to, for now, when hosts hold the
   * image. @throws the signal's reason
   */
  of(image: Image, signal: AbortSignal): Promise<ImageOrigin>
}

/** What knowing needs. */
export interface OriginsComponents {
  /** Where another host serves images; undefined when it can't be reached, or is this one. */
  peer(name: string): PeerDescription | undefined
  /** Asks the registry or the library; undefined when the image has neither. */
  find(image: Image, signal: AbortSignal): Promise<FoundImage | undefined>
  clock: Clock
  random: Random
  log: Log
  limits: Pick<Limits, 'fillSources'>
}

/** Answers that are remembered; credentials and locations are in them. */
const remembered = 64
/** An answer is good for so long, a failure for so long. */
const foundMs = 10 * 60_000
const failedMs = 15_000
/** Where hosts hold an image, a registry that is slow to answer is not waited for. */
const patienceMs = 1_000

interface Answer {
  found: Promise<FoundImage | undefined>
  untilMs: number
}

/** Remembers what registries said for a while: who holds an image changes far more often. */
export function createImageOrigins(components: OriginsComponents): ImageOrigins {
  const { peer, find, clock, random, log, limits } = components
  const answers = new Map<string, Answer>()
  const ask = (image: Image, signal: AbortSignal): Promise<FoundImage | undefined> => {
    const key = JSON.stringify([image.metadata.uid, image.status?.resolved])
    const known = answers.get(key)
    if (known !== undefined && known.untilMs > clock.monotonicMs()) return known.found
    const answer: Answer = {
      untilMs: clock.monotonicMs() + foundMs,
      found: find(image, signal).catch(error => {
        // That whoever asked has left is no answer.
        if (signal.aborted) answer.untilMs = 0
        signal.throwIfAborted()
        const fields = { image: image.metadata.name, error: messageOf(error) }
        log.warn(fields, 'the source of an image does not answer')
        answer.untilMs = clock.monotonicMs() + failedMs
        return undefined
      }),
    }
    answers.delete(key)
    answers.set(key, answer)
    const [oldest] = answers.keys()
    if (answers.size > remembered && oldest !== undefined) answers.delete(oldest)
    return answer.found
  }
  /** What comes in time. */
  const orNothing = async <T>(asked: Promise<T>, signal: AbortSignal): Promise<T | undefined> => {
    const waiting = new AbortController()
    const either = AbortSignal.any([signal, waiting.signal])
    const pause = sleep(clock, patienceMs, either).then(() => undefined)
    // One of them is in vain, and nobody hears of it.
    for (const each of [pause, asked]) each.catch(() => {})
    return await Promise.race([asked, pause]).finally(() => waiting.abort())
  }
  return {
    async of(image, signal) {
      const { status } = image
      const holders = status?.hosts ?? []
      // Those that are to hold it begin about now: who knows of all shares it out well.
      const filling = [
        ...(status?.filling ?? []).map(({ host }) => host),
        ...(status?.copyHosts ?? []),
      ]
      const names = [...shuffled(holders, random), ...shuffled(filling, random)]
      const peers = [...new Set(names)].flatMap(name => peer(name) ?? [])
      const asked = ask(image, signal).catch(() => {
        signal.throwIfAborted()
        return ask(image, signal)
      })
      const isHeld = holders.some(name => peer(name) !== undefined)
      const found = await (isHeld ? orNothing(asked, signal) : asked)
      const same = found?.digest === status?.digest ? found : undefined
      const own = same === undefined ? [] : [same.source]
      const sources = [...peers.slice(0, limits.fillSources - own.length), ...own]
      return same === undefined ? { sources } : { sources, parts: same.parts }
    },
  }
}

/** Not everybody shall ask the same first. */
function shuffled(names: readonly string[], random: Random): string[] {
  const mixed = [...names]
  for (let at = mixed.length - 1; at > 0; at--) {
    const other = randomInteger(random, at + 1)
    const [one = '', two = ''] = [mixed[at], mixed[other]]
    mixed[at] = two
    mixed[other] = one
  }
  return mixed
}
