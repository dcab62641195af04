import { stat } from 'node:fs/promises'
import type { Clock, Timer } from '../base/clock.ts'

const periodMs = 250

/**
 * Says every quarter of a second how many bytes a file takes on its disk: the progress of a program
 * that fills it.
 * @returns ends the watching
 */
export function watchAllocation(
  clock: Clock,
  path: string,
  onProgress: (allocatedBytes: number) => void,
): () => void {
  let ended = false
  let timer: Timer
  const look = async () => {
    // A file that can't be looked at now is no reason to give up what fills it.
    const blocks = await stat(path).then(
      stats => stats.blocks,
      () => 0,
    )
    if (ended) return
    onProgress(blocks * 512)
    timer = clock.setTimer(periodMs, look)
  }
  timer = clock.setTimer(periodMs, look)
  return () => {
    ended = true
    timer.cancel()
  }
}
