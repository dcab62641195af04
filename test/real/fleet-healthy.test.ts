import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { sleep, systemClock } from '../../base/clock.ts'
import type { VirtualMachine } from '../../resources/virtual-machine.ts'
import { createTestFleet, type TestFleet } from '../cluster/fleet.ts'
import type { TestRack } from '../cluster/rack.ts'
import { until } from '../support/host.ts'

/** Minutes: only in `script/test --long`, or when MACFLEET_TEST_ROUNDS says how many rounds. */
const isLong = process.env['MACFLEET_TEST_LONG'] !== undefined
const rounds = Number(process.env['MACFLEET_TEST_ROUNDS'] ?? (isLong ? 20 : 0))
const pauseMs = 500

let rack: TestRack
let fleet: TestFleet

const isRunning = ({ status }: VirtualMachine) => status?.phase === 'Running'

/** Makes machines and deletes them while the signal is not aborted. @returns how many */
async function churn(signal: AbortSignal): Promise<number> {
  let count = 0
  while (!signal.aborted) {
    const name = `churn-${count}`
    const through = rack.hosts[count % rack.hosts.length]?.name ?? ''
    try {
      await fleet.create(through, name, { onHostLoss: 'Replace' })
      count++
      await fleet.remove(through, name)
    } catch {
      // A daemon that is down answers nothing; the next one may.
      count++
      await sleep(systemClock, pauseMs)
    }
  }
  return count
}

describe.runIf(rounds > 0)('fencing spares the healthy', () => {
  beforeAll(async () => {
    fleet = await createTestFleet({ hosts: 3, racks: 3 }, made => {
      rack = made
    })
    await fleet.untilVoters('mac-1', 3)
  })
  afterAll(() => rack?.remove())

  test(`${rounds} kills of etcd's leader and of daemons, under load, end no guest`, async () => {
    const kept = ['one', 'two', 'three']
    for (const [index, name] of kept.entries()) {
      await fleet.place('mac-1', `mac-${index + 1}`, name, { onHostLoss: 'Replace' })
      await rack.untilMachine('mac-1', name, isRunning)
    }
    const ending = new AbortController()
    const load = churn(ending.signal)
    for (let round = 0; round < rounds; round++) {
      const leader = await fleet.etcdLeader('mac-1')
      expect(await rack.host(leader).kill('etcd')).toBe(1)
      await until('etcd is whole again', async () => {
        const { members } = await fleet.status('mac-1')
        const voters = members.map(({ voter }) => voter).filter(voter => voter !== 'unreachable')
        return voters.length === 3 && voters.includes('leader') ? true : undefined
      })
      const host = rack.hosts[round % rack.hosts.length]
      if (round % 2 === 0) await host?.kill('daemon')
      else await host?.stop()
      await host?.start()
      console.info(`round ${round + 1}: etcd's leader ${leader}, then the daemon of ${host?.name}`)
    }
    ending.abort()
    console.info(`${await load} machines came and went`)
    for (const name of kept) {
      const runs = await fleet.runs(name)
      expect(
        runs.map(({ goneMs }) => goneMs),
        name,
      ).toEqual([undefined])
    }
    expect(await fleet.overlaps()).toEqual([])
  }, 900_000)
})
