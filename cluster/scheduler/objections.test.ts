import { expect, test } from 'vitest'
import { testHost, testWanted } from '../../test/support/fleet-state.ts'
import { objections } from './objections.ts'
import type { HostView, Needs } from './types.ts'

const gpu = { key: 'gpu', value: 'yes', effect: 'NoSchedule' } as const
const found = (needs: Partial<Needs>, host: Partial<HostView>): string[] =>
  objections(testWanted(needs), testHost(host)).map(({ text }) => text)

test('a host takes what asks for nothing', () => {
  expect(found({}, {})).toEqual([])
})

test('a cordoned host takes nothing new', () => {
  expect(found({}, { schedulable: false })).toEqual(['it takes no new machines (cordoned)'])
})

test('a host that is not ready, or of another kind, takes nothing', () => {
  expect(found({}, { ready: false })).toEqual(['it is not ready'])
  const flags = { cpuFlags: ['avx2', 'sse4_2'] }
  expect(found({ arch: 'aarch64', ...flags }, { cpuFlags: new Set(['avx2']) })).toEqual([
    'it is x86_64, the machine is for aarch64',
    'its processor is not known to have sse4_2',
  ])
})

test('labels that are asked for must be there', () => {
  const wanted = { hostSelector: { rack: 'r1', disk: 'ssd' } }
  expect(found(wanted, { labels: { rack: 'r1', disk: 'ssd' } })).toEqual([])
  expect(found(wanted, { labels: { rack: 'r2' } })).toEqual([
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
  expect(found({ tolerations }, { taints: [gpu] })).toEqual(
    taken ? [] : ['the taint gpu=yes is not tolerated'],
  )
})

test('a taint that only prefers keeps nobody off', () => {
  expect(found({}, { taints: [{ key: 'gpu', effect: 'PreferNoSchedule' }] })).toEqual([])
})
