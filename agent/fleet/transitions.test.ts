import { expect, test } from 'vitest'
import { silentLog } from '../../base/log.ts'
import { createTransitions } from './transitions.ts'

const open = () => createTransitions({ log: silentLog })

test('a change is prepared while all runs, and made when all is down', async () => {
  const transitions = open()
  const said: (string | undefined)[] = []
  transitions.begin({
    kind: 'join',
    message: 'looking',
    async prepare(say) {
      say('asking')
      said.push(transitions.current()?.message)
    },
    async change(say) {
      say('changing')
      said.push(transitions.current()?.message)
    },
  })
  await transitions.ready()
  expect(said).toEqual(['asking'])
  expect(transitions.current()?.state).toBe('running')
  await transitions.perform()
  expect(said).toEqual(['asking', 'changing'])
  expect(transitions.current()).toMatchObject({ kind: 'join', state: 'done' })
})

test('one at a time', async () => {
  const transitions = open()
  const work = { kind: 'init', message: 'm', change: async () => {} } as const
  transitions.begin(work)
  expect(() => transitions.begin(work)).toThrow('init is under way')
  await transitions.ready()
  await transitions.perform()
  expect(() => transitions.begin(work)).not.toThrow()
})

test('one that can not be prepared brings nothing down, and says why', async () => {
  const transitions = open()
  const prepare = async () => {
    throw new Error('nobody answers')
  }
  transitions.begin({ kind: 'join', message: 'm', prepare, change: async () => {} })
  await expect.poll(() => transitions.current()?.state).toBe('failed')
  expect(transitions.current()?.message).toContain('nobody answers')
  const over = await Promise.race([transitions.ready().then(() => 'ready'), 'not ready'])
  expect(over).toBe('not ready')
})

test('one that fails in the middle is told, and the daemon goes on', async () => {
  const transitions = open()
  const change = async () => {
    throw new Error('no room')
  }
  transitions.begin({ kind: 'init', message: 'm', change })
  await transitions.ready()
  await transitions.perform()
  expect(transitions.current()).toMatchObject({ state: 'failed' })
})
