import type { Connection, Stream, Topology } from '@libp2p/interface'
import { expect, test } from 'vitest'
import { createManualClock } from '../../base/manual-clock.ts'
import { createGate } from './gate.ts'
import type { Session } from './session.ts'

test('a stream that was reset while it was opened is not given to gossip', async () => {
  const ended: string[] = []
  const session = { end: reason => ended.push(reason) } as Partial<Session> as Session
  const streams = ['reset', 'open'].map(status => ({ status }) as Stream)
  const connection = {
    status: 'open',
    newStream: async () => streams.shift(),
  } as Partial<Connection> as Connection
  let registered: Topology | undefined
  const registrar = {
    async register(_: string, topology: Topology) {
      registered = topology
      return 'id'
    },
  } as Parameters<ReturnType<typeof createGate>['metered']>[0]
  const gate = createGate({
    clock: createManualClock(),
    limits: { gossipBytesPerSecond: 1 },
    sessions: { of: () => session, quarantine: () => {} },
  })
  let given: Connection | undefined
  await gate.metered(registrar).register('gossip', {
    onConnect(_, connected) {
      given = connected
    },
  })
  await registered?.onConnect?.(undefined as never, connection)
  expect(given?.status).toBe('open')
  await expect(given?.newStream('gossip')).rejects.toThrow('reset')
  expect(ended).toEqual(['there is no stream for gossip'])
  await expect(given?.newStream('gossip')).resolves.toEqual({ status: 'open' })
})
