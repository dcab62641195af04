import { tolerated } from './objections.ts'
import type { HostView, Needs, Policy, ScoreParts } from './types.ts'

/**
 * What each part of a score weighs. A copy in the same place, where spreading was asked for, weighs
 * more than all the rest together: places with fewer copies always come first.
 */
const weights = { room: 2, image: 3, rack: 2, avoided: 4, copy: 16 }

/** An image of this size is worth half of what the largest would be. */
const imageHalfBytes = 8 * 2 ** 30

/** What is known of a host without looking at its room or at copies. */
export function fixedParts(needs: Needs, host: HostView): Pick<ScoreParts, 'image' | 'taints'> {
  const { image, tolerations } = needs
  const avoided = host.taints.some(
    taint => taint.effect === 'PreferNoSchedule' && !tolerated(tolerations, taint),
  )
  const held = image !== undefined && host.mayHoldImage(image.digest)
  const bytes = image?.bytes ?? imageHalfBytes
  return {
    image: held ? (weights.image * bytes) / (bytes + imageHalfBytes) : 0,
    taints: avoided ? -weights.avoided : 0,
  }
}

/** @param freeFraction what stays free of the host, 0 to 1, the mean of processor and memory */
export function roomPart(room: Policy['room'], freeFraction: number): number {
  return weights.room * (room === 'balance' ? freeFraction : 1 - freeFraction)
}

/**
 * @param spread the label by whose values the machine is to be spread, if it names one
 * @param copies how many there are in the host's place by that label, or else in its rack
 */
export function spreadPart(spread: string | undefined, copies: number): number {
  return spread === undefined ? weights.rack / (1 + copies) : -weights.copy * copies
}
