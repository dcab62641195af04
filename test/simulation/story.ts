import type { SimulationResult } from './simulate.ts'

/** Lines of a story that are told. */
const toldMost = 150

/** What happened to those whom a violation is about, in words, with times in seconds. */
export function tellStory(
  { seed, violation, story }: SimulationResult,
  { everything = false }: { everything?: boolean } = {},
): string {
  const subjects = violation?.subjects ?? []
  const concerns = (who: string, text: string): boolean =>
    ['world', 'etcd'].includes(who) ||
    subjects.some(subject => who === subject || text.includes(subject))
  const lines = story.filter(({ who, text }) => everything || concerns(who, text))
  const told = everything ? lines : lines.slice(-toldMost)
  const texts = told.map(({ atMs, who, text }) => `${(atMs / 1000).toFixed(3)}  ${who}: ${text}`)
  return [`seed ${seed}: ${violation?.message ?? 'nothing was violated'}`, ...texts].join('\n')
}
