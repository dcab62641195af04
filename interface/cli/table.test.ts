import { PassThrough } from 'node:stream'
import { describe, expect, test } from 'vitest'
import type { Table } from '../../resources/table.ts'
import { createPaint } from './colour.ts'
import type { OutputStream } from './invocation.ts'
import { createTablePrinter, gridOf } from './table.ts'

const column = (name: string, priority = 0) => ({
  name,
  type: 'string',
  format: '',
  description: '',
  priority,
})
const row = (name: string, ...cells: (string | number)[]) => ({
  cells: [name, ...cells],
  object: { apiVersion: 'v1', kind: 'X', metadata: { name, namespace: 'lab' } },
})
const table: Table = {
  kind: 'Table',
  apiVersion: 'meta.k8s.io/v1',
  metadata: {},
  columnDefinitions: [column('Name'), column('Phase'), column('Image', 1)],
  rows: [row('web', 'Running', 'debian'), row('a-long-name', '', 'x')],
}
const plain = (_: string, text: string) => text
const terminal = (isTTY: boolean): OutputStream => Object.assign(new PassThrough(), { isTTY })

describe('a table', () => {
  test('has aligned columns and nothing after the last', async () => {
    const grid = gridOf(table, { wide: false, withNamespace: false })
    expect(await createTablePrinter(plain).lines(grid)).toEqual([
      'NAME          PHASE',
      'web           Running',
      'a-long-name   -',
    ])
  })

  test('shows more when it may be wide, and the namespace when there are several', async () => {
    const grid = gridOf(table, { wide: true, withNamespace: true })
    expect(await createTablePrinter(plain).lines(grid)).toEqual([
      'NAMESPACE   NAME          PHASE     IMAGE',
      'lab         web           Running   debian',
      'lab         a-long-name   -         x',
    ])
  })

  test('keeps to its columns when rows come later, with one heading', async () => {
    const printer = createTablePrinter(plain)
    await printer.lines({ headings: ['Name', 'Phase'], rows: [['a-long-name', 'x']] })
    expect(await printer.lines({ headings: ['Name', 'Phase'], rows: [['b', 'y']] })).toEqual([
      'b             y',
    ])
  })

  test('counts wide characters as two columns', async () => {
    const grid = {
      headings: ['N', 'P'],
      rows: [
        ['日本', 'x'],
        ['ab', 'y'],
      ],
    }
    expect(await createTablePrinter(plain).lines(grid)).toEqual([
      'N      P',
      '日本   x',
      'ab     y',
    ])
  })

  test('lets no control character of a guest through', () => {
    const evil = { ...table, rows: [row('web', '\u001b]0;owned\u0007\nRunning')] }
    const [cells] = gridOf(evil, { wide: false, withNamespace: false }).rows
    expect(cells).toEqual(['web', ' ]0;owned Running'])
  })
})

describe('colour', () => {
  const grid = { headings: ['Name', 'Phase'], rows: [['Failed', 'Failed']] }

  test('marks states on a terminal, and names never', async () => {
    const paint = createPaint(terminal(true), { TERM: 'xterm' })
    const [, line] = await createTablePrinter(paint).lines(grid)
    expect(line).toBe('Failed   \u001b[31mFailed\u001b[39m')
  })

  test.each([
    [false, {}],
    [true, { NO_COLOR: '1' }],
    [true, { TERM: 'dumb' }],
  ])('is off where it is not wanted (terminal %s, %j)', async (isTTY, environment) => {
    const paint = createPaint(terminal(isTTY), environment)
    expect(paint('red', 'x')).toBe('x')
  })
})
