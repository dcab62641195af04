import type { Condition } from '../../resources/condition.ts'
import { formatAge } from '../../resources/duration.ts'
import type { Event } from '../../resources/event.ts'
import type { Resource } from '../../resources/kind.ts'
import { approximateBytes } from '../../resources/quantity.ts'
import { bootPicture } from './boot-timings.ts'
import { type Paint, stateColour } from './colour.ts'
import { asMachine } from './machine.ts'
import { createTablePrinter } from './table.ts'
import { printable } from './text.ts'
import { isRecord, textOf } from './untyped.ts'

/** What is described, and how. */
export interface DescriptionInit {
  object: Resource
  events: readonly Event[]
  /** The wall time, for ages. */
  nowMs: number
  paint: Paint
}

/** Members that have a part of their own, or that only programs care for. */
const apart = new Set(['conditions', 'bootTimings', 'managedFields', 'selfLink', 'userData'])

const pictureColumns = 40

/** An object as people read it: every field, then conditions, boot and events. */
export async function describeObject(init: DescriptionInit): Promise<string[]> {
  const { object, paint } = init
  const { metadata, spec, status } = object
  return [
    ...fields({ Kind: object.kind, ...titled(metadata) }, 0, paint),
    ...section('Spec', spec, paint),
    ...section('Status', status, paint),
    ...userData(spec, paint),
    ...(await conditions(init, status)),
    ...boot(init),
    ...(await events(init)),
  ]
}

function section(title: string, value: unknown, paint: Paint): string[] {
  if (!isRecord(value)) return []
  const lines = fields(titled(value), 1, paint)
  return lines.length === 0 ? [] : ['', paint('bold', `${title}:`), ...lines]
}

/** The members with headings: `creationTimestamp` becomes `Creation Timestamp`. */
function titled(members: object): Record<string, unknown> {
  const shown = Object.entries(members).filter(([name]) => !apart.has(name))
  return Object.fromEntries(shown.map(([name, value]) => [title(name), value]))
}

function title(name: string): string {
  const spaced = name.replace(/([a-z\d])([A-Z])/g, '$1 $2')
  return spaced.charAt(0).toUpperCase() + spaced.slice(1)
}

/** One line per member; members of members are indented below. */
function fields(members: Record<string, unknown>, level: number, paint: Paint): string[] {
  const indent = '  '.repeat(level)
  const simple = Object.entries(members).filter(([, value]) => !isEmpty(value))
  const columns = Math.max(0, ...simple.filter(([, v]) => !isRecord(v)).map(([n]) => n.length))
  return simple.flatMap(([name, value]) => {
    if (isRecord(value)) {
      const inner = usersWords.has(name) ? value : titled(value)
      return [`${indent}${name}:`, ...fields(inner, level + 1, paint)]
    }
    const head = `${indent}${`${name}:`.padEnd(columns + 1)}  `
    if (!Array.isArray(value)) return [head + painted(String(value), paint)]
    const [first = '', ...others] = value.map(item => element(item))
    return [head + first, ...others.map(text => ' '.repeat(head.length) + text)]
  })
}

/** Members whose keys are the user's words, which stay as they are. */
const usersWords = new Set(['Labels', 'Annotations', 'Host Selector'])

function isEmpty(value: unknown): boolean {
  if (value === undefined || value === null || value === '') return true
  return Array.isArray(value) ? value.length === 0 : false
}

/** An element of a list on one line: `guestPort=22 protocol=TCP`. */
function element(item: unknown): string {
  if (!isRecord(item)) return printable(String(item))
  const { host, doneBytes, totalBytes, stalled } = item
  if (typeof doneBytes === 'number' && typeof totalBytes === 'number') {
    return printable(`${textOf(host)} ${share(doneBytes, totalBytes)} ${textOf(stalled)}`).trim()
  }
  return Object.entries(item)
    .map(([name, value]) => `${name}=${printable(String(value))}`)
    .join(' ')
}

/** How much of an image is there: `37% (1.2Gi of 3.2Gi)`. */
function share(doneBytes: number, totalBytes: number): string {
  const percent = totalBytes > 0 ? Math.floor((doneBytes / totalBytes) * 100) : 0
  return `${percent}% (${approximateBytes(doneBytes)} of ${approximateBytes(totalBytes)})`
}

function painted(value: string, paint: Paint): string {
  const text = printable(value)
  const colour = stateColour(text)
  return colour === undefined ? text : paint(colour, text)
}

/** User data may hold passwords: only its size is shown, `get -o yaml` has it. */
function userData(spec: unknown, paint: Paint): string[] {
  const text = isRecord(spec) ? textOf(spec['userData']) : ''
  if (text === '') return []
  return ['', paint('bold', 'User Data:'), `  ${Buffer.byteLength(text)} bytes`]
}

async function conditions(init: DescriptionInit, status: unknown): Promise<string[]> {
  const listed = isRecord(status) ? status['conditions'] : undefined
  if (!Array.isArray(listed) || listed.length === 0) return []
  const rows = listed
    .filter((item): item is Condition => isRecord(item))
    .map(({ type, status: state, reason, message, lastTransitionTime }) =>
      [type, state, age(init.nowMs, lastTransitionTime), reason, message].map(cell),
    )
  const headings = ['Name', 'Status', 'Since', 'Reason', 'Message']
  return ['', init.paint('bold', 'Conditions:'), ...(await indented(init, { headings, rows }))]
}

function boot({ object, paint }: DescriptionInit): string[] {
  if (object.kind !== 'VirtualMachine') return []
  const lines = bootPicture(asMachine(object), pictureColumns)
  return lines.length === 0 ? [] : ['', paint('bold', 'Boot:'), ...lines.map(line => `  ${line}`)]
}

async function events(init: DescriptionInit): Promise<string[]> {
  if (init.object.kind === 'Event') return []
  if (init.events.length === 0) return ['', `${init.paint('bold', 'Events:')} none`]
  const rows = init.events.map(event => {
    const times = event.count !== undefined && event.count > 1 ? ` (x${event.count})` : ''
    const seen = age(init.nowMs, event.lastTimestamp) + times
    return [seen, event.type, event.reason, event.message].map(cell)
  })
  const headings = ['Seen', 'Type', 'Reason', 'Message']
  return ['', init.paint('bold', 'Events:'), ...(await indented(init, { headings, rows }))]
}

function age(nowMs: number, time: string | undefined): string {
  const atMs = Date.parse(time ?? '')
  return Number.isNaN(atMs) ? '-' : formatAge(nowMs - atMs)
}

function cell(value: unknown): string {
  const text = value === undefined ? '' : printable(String(value))
  return text === '' ? '-' : text
}

async function indented(
  { paint }: DescriptionInit,
  grid: { headings: string[]; rows: string[][] },
): Promise<string[]> {
  const lines = await createTablePrinter(paint).lines(grid)
  return lines.map(line => `  ${line}`)
}
