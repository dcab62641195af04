import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { checkout } from '../../agent/dev/local-host.ts'
import { createSeededRandom, randomInteger } from '../../base/random.ts'
import type { VirtualMachine } from '../../resources/virtual-machine.ts'
import { createTestHost, qemuPids, type TestHost, until } from '../support/host.ts'

/** Few in everyday runs; `script/test --long` kills more often. */
const kills = process.env['MACFLEET_TEST_LONG'] ? 50 : 10
const seed = Number(process.env['MACFLEET_TEST_SEED'] ?? Date.now() % 1_000_000)
const random = createSeededRandom(seed)
const pick = <T>(list: readonly T[]): T => {
  const chosen = list[randomInteger(random, list.length)]
  if (chosen === undefined) throw new Error('nothing to pick from')
  return chosen
}

let host: TestHost
beforeAll(async () => {
  host = await createTestHost()
  await host.must(
    'image',
    'import',
    join(checkout, '.macfleet/guests/micro.raw'),
    '--name',
    'micro',
  )
})
afterAll(() => host?.remove())

/** The machines that QEMU runs, by uid, as often as each runs. */
function runningUids(): string[] {
  const commands = host.processes().filter(({ pid }) => qemuPids(host).includes(pid))
  return commands.map(({ command }) => / -uuid (\S+)/.exec(command)?.[1] ?? 'unknown')
}

async function machines(): Promise<VirtualMachine[]> {
  return JSON.parse(await host.must('get', 'vms', '-o', 'json')).items
}

/** Asks for something that takes the daemon a while; whether it gets there is not our concern here. */
async function disturb(): Promise<void> {
  const name = pick(['one', 'two', 'three'])
  const run = ['run', 'micro', '--name', name, '--memory', '128Mi', '--cpu', '100m']
  const action = pick([
    run,
    run,
    ['stop', name],
    ['start', name],
    ['restart', name],
    ['delete', 'vm', name, '--no-wait'],
  ])
  await host.macfleet(...action)
}

/** Whether every machine is as its spec says, and nothing else runs. */
async function isSettled(): Promise<true | undefined> {
  const all = await machines()
  const wanted = all.filter(at => at.spec.powerState === 'Running').map(at => at.metadata.uid)
  const asWanted = all.every(at => {
    const phase = at.status?.phase
    return at.spec.powerState === 'Running' ? phase === 'Running' : phase === 'Stopped'
  })
  const gone = all.every(at => at.metadata.deletionTimestamp === undefined)
  const same = JSON.stringify(runningUids().sort()) === JSON.stringify([...wanted].sort())
  return asWanted && gone && same ? true : undefined
}

test(
  `${kills} kills of the daemon at random moments lose and double no machine (seed ${seed})`,
  async () => {
    for (let count = 0; count < kills; count++) {
      await disturb()
      await delay(randomInteger(random, 1200))
      await host.kill()
      const uids = runningUids()
      expect(new Set(uids).size, `kill ${count}, seed ${seed}: a machine runs twice`).toBe(
        uids.length,
      )
      await host.start()
    }
    await until(`all machines are as wanted (seed ${seed})`, isSettled, 90_000).catch(
      async error => {
        const found = (await machines()).map(at => [
          at.metadata.name,
          at.spec.powerState,
          at.status,
        ])
        throw new Error(`${error.message}: ${JSON.stringify(found)}; run: ${runningUids()}`)
      },
    )
    for (const machine of await machines()) await host.must('delete', 'vm', machine.metadata.name)
    expect(runningUids()).toEqual([])
  },
  120_000 + kills * 10_000,
)
