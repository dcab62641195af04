import type { Invocation, OutputStream } from './invocation.ts'

/** The few colours that mean something here. */
export type Colour = 'red' | 'green' | 'yellow' | 'dim' | 'bold'

/** Wraps a text in a colour, or returns it as it is. */
export type Paint = (colour: Colour, text: string) => string

// ECMA-48, Select Graphic Rendition: begin and end.
const codes: Record<Colour, readonly [number, number]> = {
  red: [31, 39],
  green: [32, 39],
  yellow: [33, 39],
  dim: [2, 22],
  bold: [1, 22],
}

/** Whether colour is wanted: a terminal that can, and no NO_COLOR (no-color.org). */
export function wantsColour(stream: OutputStream, environment: Invocation['environment']): boolean {
  const refused = environment['NO_COLOR'] !== undefined && environment['NO_COLOR'] !== ''
  return stream.isTTY === true && !refused && environment['TERM'] !== 'dumb'
}

/** Paints where colour is wanted. */
export function createPaint(stream: OutputStream, environment: Invocation['environment']): Paint {
  if (!wantsColour(stream, environment)) return (_, text) => text
  return (colour, text) => `\u001b[${codes[colour][0]}m${text}\u001b[${codes[colour][1]}m`
}

const words: Record<string, Colour> = {
  Running: 'green',
  Ready: 'green',
  Active: 'green',
  True: 'green',
  Pending: 'yellow',
  Pulling: 'yellow',
  Starting: 'yellow',
  Importing: 'yellow',
  Deleting: 'yellow',
  Terminating: 'yellow',
  Warning: 'yellow',
  Suspended: 'dim',
  Stopped: 'dim',
  Failed: 'red',
  Unknown: 'red',
  NotReady: 'red',
}

/** The colour of a state, where it has one. */
export function stateColour(state: string): Colour | undefined {
  return Object.hasOwn(words, state) ? words[state] : undefined
}
