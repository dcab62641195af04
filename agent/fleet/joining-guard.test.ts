import { expect, test } from 'vitest'
import type { FleetStatus } from '../../interface/api/fleet-operations.ts'
import type { VirtualMachine } from '../../resources/virtual-machine.ts'
import { joiningGuard } from './joining-guard.ts'

const machine = {} as VirtualMachine
const guardWhile = (transition: FleetStatus['transition']) =>
  joiningGuard({ current: () => transition }).create?.(machine)

test.each(['join', 'leave', 'restore'] as const)('no machine comes during a %s', async kind => {
  const running = guardWhile({ kind, state: 'running', message: 'm' })
  await expect(running).rejects.toThrow(`${kind} is under way`)
})

test('machines come when nothing is under way, and while a fleet is made', async () => {
  expect(await guardWhile(undefined)).toEqual([])
  expect(await guardWhile({ kind: 'join', state: 'failed', message: 'm' })).toEqual([])
  expect(await guardWhile({ kind: 'init', state: 'running', message: 'm' })).toEqual([])
})
