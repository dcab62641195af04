import { expect, test } from 'vitest'
import type { Host } from '../../resources/host.ts'
import { testMachine } from '../../test/support/machine.ts'
import { objections } from './objections.ts'

const hostWith = (spec: Partial<Host['spec']>, labels: Record<string, string> = {}): Host => ({
  apiVersion: 'macfleet.dev/v1',
  kind: 'Host',
  metadata: { name: 'mac-1', labels },
  spec: { schedulable: true, ...spec },
})
const gpu = { key: 'gpu', value: 'yes', effect: 'NoSchedule' } as const
const spec = (given: Parameters<typeof testMachine>[0]) => testMachine(given).spec

test('a host takes what asks for nothing', () => {
  expect(objections(spec({}), hostWith({}))).toEqual([])
})

test('a cordoned host takes nothing new', () => {
  expect(objections(spec({}), hostWith({ schedulable: false }))).toEqual([
    'it takes no new machines (cordoned)',
  ])
})

test('labels that are asked for must be there', () => {
  const wanted = spec({ hostSelector: { rack: 'r1', disk: 'ssd' } })
  expect(objections(wanted, hostWith({}, { rack: 'r1', disk: 'ssd' }))).toEqual([])
  expect(objections(wanted, hostWith({}, { rack: 'r2' }))).toEqual([
    'the label rack must be r1, it has r2',
    'the label disk must be ssd, it has none',
  ])
})

test.each([
  [[], false],
  [[{ key: 'gpu', operator: 'Equal', value: 'yes' }], true],
  [[{ key: 'gpu', operator: 'Equal', value: 'no' }], false],
  [[{ key: 'gpu', operator: 'Exists' }], true],
  [[{ operator: 'Exists' }], true],
  [[{ operator: 'Equal', value: 'yes' }], false],
  [[{ key: 'gpu', operator: 'Exists', effect: 'PreferNoSchedule' }], false],
] as const)('a taint keeps off who does not tolerate it: %j', (tolerations, taken) => {
  const found = objections(spec({ tolerations: [...tolerations] }), hostWith({ taints: [gpu] }))
  expect(found).toEqual(taken ? [] : ['the taint gpu=yes is not tolerated'])
})

test('a taint that only prefers keeps nobody off', () => {
  const soft = { key: 'gpu', effect: 'PreferNoSchedule' } as const
  expect(objections(spec({}), hostWith({ taints: [soft] }))).toEqual([])
})
