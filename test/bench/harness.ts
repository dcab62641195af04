import { awaitQuiet } from '../support/quiet.ts'

/** What a metric is held to. */
export interface Target {
  value: number
  /** `atMost`: as large as the target is well. `below`: it has to be smaller. */
  bound: 'atMost' | 'below' | 'atLeast'
}

/** One number that a bench gives, made from several runs. */
export interface Figure {
  /** What is measured, for people. */
  what: string
  /** The median of the runs. */
  value: number
  unit: string
  runs: number
  /** How far the runs lie apart: (90th - 10th percentile) / median. 0 for a single run. */
  spread: number
  /** The smallest run: where others use the machine too, it is the one that they disturbed least. */
  least: number
  target?: Target
}

/** What a bench measures with. */
export interface BenchContext {
  /** Aborted by Ctrl-C and when the bench takes longer than it may. */
  signal: AbortSignal
  /** Fewer runs and shorter waits: to see that the bench works, not to measure. */
  quick: boolean
  /** Says how far it is. */
  say(text: string): void
  /** Called when all is over, however it went, last added first. */
  afterwards(step: () => unknown): void
}

/** A file of this folder exports one as `bench`. */
export interface Bench {
  /** The longest that it may take, in milliseconds. */
  timeoutMs: number
  /** Metric names to figures, in the order to be shown. */
  run(context: BenchContext): Promise<Record<string, Figure>>
}

/** One of the things that are compared: gives one measurement, in the unit of the comparison. */
export type Contender = () => Promise<number>

/** How contenders are measured. */
export interface TurnsInit {
  rounds: number
  /**
   * How long to wait, in all, for moments in which nothing else runs: on a machine that others use
   * too, the difference between a measurement and noise.
   */
  patienceMs: number
}

/**
 * Measures contenders in turns, so that what changes on the machine meets all of them alike. Each
 * second round goes backwards (A B C, C B A, B C A, ...): no one always comes first, or always
 * after the same other. The first round warms up and is thrown away.
 * @returns the measurements of each contender, by round
 */
export async function measureInTurns(
  contenders: Readonly<Record<string, Contender>>,
  { rounds, patienceMs }: TurnsInit,
  { signal, say }: Pick<BenchContext, 'signal' | 'say'>,
): Promise<Record<string, number[]>> {
  const entries = Object.entries(contenders)
  const results: Record<string, number[]> = {}
  let leftMs = patienceMs
  for (let round = 0; round <= rounds; round++) {
    const line: string[] = []
    for (const [name, measure] of orderOf(entries, round)) {
      leftMs = Math.max(0, leftMs - (await awaitQuiet(leftMs, signal)))
      const value = await measure()
      line.push(`${name} ${value.toFixed(1)}`)
      if (round > 0) results[name] = [...(results[name] ?? []), value]
    }
    say(`${round === 0 ? 'warming up' : `${round} of ${rounds}`}: ${line.join(', ')}`)
  }
  if (leftMs === 0 && patienceMs > 0) say('others kept the machine busy: these figures are noisy')
  return results
}

function orderOf<T>(list: readonly T[], round: number): T[] {
  const at = Math.floor(round / 2) % list.length
  const rotated = [...list.slice(at), ...list.slice(0, at)]
  return round % 2 === 0 ? rotated : rotated.reverse()
}

/** The value below which the share `fraction` (0 to 1) of a list lies, between its neighbours. */
export function quantile(values: readonly number[], fraction: number): number {
  const sorted = values.toSorted((a, b) => a - b)
  const at = (sorted.length - 1) * fraction
  const below = sorted[Math.floor(at)] ?? Number.NaN
  const above = sorted[Math.ceil(at)] ?? Number.NaN
  return below + (above - below) * (at - Math.floor(at))
}

/** The figure that these runs give. */
export function figureOf(
  what: string,
  unit: string,
  values: readonly number[],
  target?: Target,
): Figure {
  const value = quantile(values, 0.5)
  const spread = (quantile(values, 0.9) - quantile(values, 0.1)) / value
  const runs = { runs: values.length, spread: value === 0 ? 0 : spread, least: Math.min(...values) }
  const figure = { what, value, unit, ...runs }
  return target === undefined ? figure : { ...figure, target }
}

/** How many times as long one took as the other: the median of what each round says. */
export function ratioOf(
  what: string,
  values: readonly number[] = [],
  others: readonly number[] = [],
  target?: Target,
): Figure {
  const ratios = values.map((value, round) => value / (others[round] ?? Number.NaN))
  return figureOf(what, 'x', ratios, target)
}

/** Whether a figure is what it should be; undefined when nothing was promised. */
export function isMet({ value, target }: Figure): boolean | undefined {
  if (target === undefined) return undefined
  if (target.bound === 'atMost') return value <= target.value
  return target.bound === 'below' ? value < target.value : value >= target.value
}

const signs = { atMost: '<=', below: '<', atLeast: '>=' } as const

/** Figures as a table for people. */
export function formatTable(figures: Readonly<Record<string, Figure>>): string {
  const rows = Object.entries(figures).map(([metric, figure]) => {
    const { what, value, unit, target, runs, spread, least } = figure
    const met = isMet(figure)
    return [
      metric,
      `${formatNumber(value)} ${unit}`,
      target === undefined ? '' : `${signs[target.bound]} ${target.value} ${unit}`,
      met === undefined ? '' : met ? 'yes' : 'NO',
      String(runs),
      runs < 2 ? '' : `${Math.round(spread * 100)} %`,
      runs < 2 ? '' : formatNumber(least),
      what,
    ]
  })
  const table = [['METRIC', 'VALUE', 'TARGET', 'MET', 'RUNS', 'SPREAD', 'LEAST', 'WHAT'], ...rows]
  const widths = table[0]?.map((_, column) =>
    Math.max(...table.map(row => row[column]?.length ?? 0)),
  )
  const pad = (row: readonly string[]) => row.map((cell, at) => cell.padEnd(widths?.[at] ?? 0))
  return table.map(row => pad(row).join('  ').trimEnd()).join('\n')
}

/** Three digits that mean something. */
function formatNumber(value: number): string {
  return value >= 100 ? String(Math.round(value)) : String(Number(value.toPrecision(3)))
}

/** Figures for programs: metric -> value, unit, target, runs, spread. */
export function formatJson(figures: Readonly<Record<string, Figure>>): string {
  const entries = Object.entries(figures).map(([metric, figure]) => {
    const { target, ...rest } = figure
    const held = target && { target: target.value, bound: target.bound, met: isMet(figure) }
    return [metric, { ...rest, target: null, ...held }]
  })
  return JSON.stringify(Object.fromEntries(entries), null, 2)
}
