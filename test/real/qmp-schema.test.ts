import { expect, it } from 'vitest'
import { systemClock } from '../../base/clock.ts'
import { defaultLimits } from '../../base/limits.ts'
import { silentLog } from '../../base/log.ts'
import { connectQmp } from '../../kvm/qmp/client.ts'
import { qmpCommands } from '../../kvm/qmp/commands.ts'
import { qmpEvents } from '../../kvm/qmp/events.ts'
import { startBareQemu } from '../support/bare-qemu.ts'

/** A JSON schema, as far as kvm/qmp uses it. */
interface Ours {
  type?: string
  enum?: string[]
  properties?: Record<string, Ours>
  required?: string[]
  items?: Ours
}

/** SchemaInfo of QEMU's introspection (QEMU QMP reference, query-qmp-schema). */
interface Theirs {
  name: string
  'meta-type': string
  'arg-type'?: string
  'ret-type'?: string
  'element-type'?: string
  'json-type'?: string
  values?: string[]
  features?: string[]
  members?: { name: string; type: string; default?: null; features?: string[] }[]
  variants?: { case: string; type: string }[]
}

/** Whether we send the value to QEMU or receive it. */
type Direction = 'send' | 'receive'

/** Compares what we wrote by hand with QEMU's own schema; returns every difference as a sentence. */
function compare(ours: Ours, theirs: Theirs, all: Map<string, Theirs>, direction: Direction) {
  const differences: string[] = []
  const typeOf = (name: string | undefined): Theirs => {
    const type = all.get(name ?? '')
    if (type === undefined) throw new Error(`the schema has no type ${name}`)
    return type
  }

  const visit = (mine: Ours, type: Theirs, path: string): void => {
    if (type['meta-type'] === 'object') visitObject(mine, type, path)
    else if (type['meta-type'] === 'enum') visitEnum(mine, type, path)
    else if (type['meta-type'] === 'array') {
      if (mine.items === undefined) differences.push(`${path} is an array`)
      else visit(mine.items, typeOf(type['element-type']), `${path}[]`)
    } else {
      const basic = type['json-type'] === 'int' ? 'integer' : type['json-type']
      if (mine.type !== basic) differences.push(`${path} is ${basic}, not ${mine.type}`)
    }
  }

  const visitObject = (mine: Ours, type: Theirs, path: string): void => {
    if (mine.type !== 'object') differences.push(`${path} is an object`)
    // What the variants add may be sent, too: the protocol of set_password decides on `connected`.
    const variants = (type.variants ?? []).flatMap(variant => typeOf(variant.type).members ?? [])
    const members = new Map([...variants, ...(type.members ?? [])].map(one => [one.name, one]))
    for (const [name, property] of Object.entries(mine.properties ?? {})) {
      const member = members.get(name)
      if (member === undefined) {
        differences.push(`${path} has no ${name}`)
        continue
      }
      if (member.features?.includes('deprecated')) differences.push(`${path}.${name} is deprecated`)
      const required = mine.required?.includes(name) ?? false
      if (direction === 'receive' && required && 'default' in member) {
        differences.push(`${path}.${name} may be missing`)
      }
      visit(property, typeOf(member.type), `${path}.${name}`)
    }
    if (direction === 'receive') return
    for (const member of type.members ?? []) {
      if (!('default' in member) && !mine.required?.includes(member.name)) {
        differences.push(`${path}.${member.name} must be given`)
      }
    }
  }

  const visitEnum = (mine: Ours, type: Theirs, path: string): void => {
    if (mine.enum === undefined) {
      if (mine.type !== 'string') differences.push(`${path} is an enum, not ${mine.type}`)
      return
    }
    const [part, whole] =
      direction === 'send' ? [mine.enum, type.values ?? []] : [type.values ?? [], mine.enum]
    const missing = part.filter(value => !whole.includes(value))
    if (missing.length > 0) differences.push(`${path}: ${missing.join(', ')}`)
  }

  visit(ours, theirs, theirs.name)
  return differences
}

async function readSchema(): Promise<Map<string, Theirs>> {
  const qemu = await startBareQemu(['-machine', 'none', '-S'])
  const components = { clock: systemClock, log: silentLog, limits: defaultLimits }
  const client = await connectQmp({ socketPath: qemu.qmp }, components)
  const entries: Theirs[] = await client.execute('query-qmp-schema')
  await client.execute('quit')
  expect(await qemu.exited).toEqual({ code: 0, signal: null })
  return new Map(entries.map(entry => [entry.name, entry]))
}

it('describes every command and event as this QEMU does', async () => {
  const schema = await readSchema()
  const differences: string[] = []
  const check = (name: string, metaType: string): Theirs => {
    const entry = schema.get(name)
    if (entry?.['meta-type'] !== metaType) throw new Error(`QEMU has no ${metaType} ${name}`)
    if (entry.features?.includes('deprecated')) differences.push(`${name} is deprecated`)
    return entry
  }
  const type = (name: string | undefined, label: string): Theirs => {
    const entry = schema.get(name ?? '')
    if (entry === undefined) throw new Error(`the schema has no type ${name}`)
    return { ...entry, name: label }
  }
  for (const [name, mine] of Object.entries(qmpCommands)) {
    const entry = check(name, 'command')
    const [sent, got] = [type(entry['arg-type'], name), type(entry['ret-type'], `${name} ->`)]
    differences.push(...compare(mine.arguments as Ours, sent, schema, 'send'))
    differences.push(...compare(mine.returns as Ours, got, schema, 'receive'))
  }
  for (const [name, mine] of Object.entries(qmpEvents)) {
    const data = type(check(name, 'event')['arg-type'], name)
    differences.push(...compare(mine as Ours, data, schema, 'receive'))
  }
  expect(differences).toEqual([])
  expect(Object.keys(qmpCommands).length).toBeGreaterThan(30)
})

it('finds each kind of difference', async () => {
  const schema = await readSchema()
  const commit = schema.get(schema.get('block-commit')?.['arg-type'] ?? '')
  if (commit === undefined) throw new Error('QEMU has no block-commit')
  const text = { type: 'string' }
  const wrong: Ours = {
    type: 'object',
    properties: {
      top: text,
      speed: text,
      colour: text,
      'on-error': { enum: ['report', 'panic'] },
      'auto-dismiss': { type: 'boolean' },
    },
  }
  const differences = compare(wrong, { ...commit, name: 'block-commit' }, schema, 'send')
  expect(differences).toEqual([
    'block-commit.top is deprecated',
    'block-commit.speed is integer, not string',
    'block-commit has no colour',
    'block-commit.on-error: panic',
    'block-commit.device must be given',
  ])
  const returned = { ...wrong, properties: { 'auto-dismiss': { type: 'boolean' } } }
  returned.required = ['auto-dismiss']
  expect(compare(returned, { ...commit, name: 'block-commit' }, schema, 'receive')).toEqual([
    'block-commit.auto-dismiss may be missing',
  ])
})
