import { expect, test } from 'vitest'
import { systemClock } from '../base/clock.ts'
import { failure } from '../base/errors.ts'
import { defaultLimits } from '../base/limits.ts'
import { silentLog } from '../base/log.ts'
import { type FreezingAgent, openFrozen } from './freeze.ts'

const components = { clock: systemClock, log: silentLog, limits: defaultLimits }

/** An agent of a guest with so many file systems, and what it was asked. */
function agentOf(count: number, changes: Partial<FreezingAgent> = {}) {
  const asked: string[] = []
  let frozen = false
  const agent: FreezingAgent = {
    async freeze(options) {
      asked.push('freeze')
      if (changes.freeze) return await changes.freeze(options)
      frozen = count > 0
      return count
    },
    async thaw(options) {
      asked.push('thaw')
      if (changes.thaw) await changes.thaw(options)
      frozen = false
      return count
    },
    freezeStatus: async () => (frozen ? 'frozen' : 'thawed'),
  }
  return { agent, asked, isFrozen: () => frozen }
}

test('a guest holds still until it is thawed', async () => {
  const { agent, asked, isFrozen } = agentOf(2)
  const frozen = await openFrozen(agent, components)
  expect(isFrozen()).toBe(true)
  expect(await frozen.problem()).toBeUndefined()
  expect(await frozen.thaw()).toBe(true)
  expect(await frozen.thaw()).toBe(true)
  expect(isFrozen()).toBe(false)
  expect(asked).toEqual(['freeze', 'thaw'])
  expect(await frozen.problem()).toContain('too short a time')
})

test('a freeze that nobody waited for to the end is undone', async () => {
  const late = failure('timeout', { what: 'an answer', timeoutMs: 1 })
  const { agent, asked } = agentOf(1, { freeze: () => Promise.reject(late) })
  const frozen = await openFrozen(agent, components)
  expect(await frozen.problem()).toContain('did not freeze')
  await frozen.thaw()
  expect(asked).toEqual(['freeze', 'thaw'])
})

test('a thaw that fails is tried again', async () => {
  let tries = 0
  const { agent, isFrozen } = agentOf(1, {
    async thaw() {
      if (++tries === 1) throw failure('timeout', { what: 'an answer', timeoutMs: 1 })
      return 1
    },
  })
  const frozen = await openFrozen(agent, components)
  expect(await frozen.thaw()).toBe(true)
  expect([tries, isFrozen()]).toEqual([2, false])
})

test('a guest that can not be frozen, or thaws by itself, is told of', async () => {
  expect(await (await openFrozen(undefined, components)).problem()).toContain('no guest agent')
  const none = await openFrozen(agentOf(0).agent, components)
  expect(await none.problem()).toContain('no file system')
  const { agent } = agentOf(1)
  const brief = await openFrozen(agent, components)
  await agent.thaw()
  expect(await brief.problem()).toContain('did not stay frozen')
})
