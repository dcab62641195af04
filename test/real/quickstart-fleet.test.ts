import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import { checkout } from '../../agent/dev/local-host.ts'
import { networksNow } from '../../agent/dev/network.ts'
import { networkName } from '../../agent/dev/plan.ts'
import { type CliResult, processesOf, runCli, until } from '../support/host.ts'

const home = mkdtempSync(join(tmpdir(), 'mf-quick-fleet-'))
const environment = {
  ...process.env,
  MACFLEET_QUICKSTART_DIR: join(home, 'here'),
  MACFLEET_CONFIG_DIR: join(home, 'config'),
}
const program = join(checkout, 'script/quickstart')
const quickstart = (...args: string[]) => runCli(program, args, environment)

afterAll(async () => {
  await quickstart('--stop')
  rmSync(home, { recursive: true, force: true })
})

interface Running {
  child: ChildProcess
  /** Where all files of its fleet are, and what the names of its namespaces begin with. */
  network: Promise<string>
  ended: Promise<CliResult>
}

/** Starts it, and finds out which of the fleets on this machine is its. */
function begin(...args: string[]): Running {
  const child = spawn(program, args, { env: environment, stdio: ['ignore', 'pipe', 'pipe'] })
  const output = { stdout: '', stderr: '' }
  child.stdout.on('data', bytes => {
    output.stdout += bytes
  })
  child.stderr.on('data', bytes => {
    output.stderr += bytes
  })
  const ended = new Promise<CliResult>((resolve, reject) => {
    child.once('error', reject)
    child.once('close', code => resolve({ code, ...output }))
  })
  const network = until(
    'it says where the fleet is',
    () => {
      const number = /on 10\.(\d+)\.0\.0\/16/.exec(output.stderr)?.[1]
      const plan = networksNow().find(found => found.number === Number(number))
      return plan && networkName(plan)
    },
    60_000,
  )
  return { child, network, ended }
}

function expectNothingOf(network: string): void {
  expect(networksNow().map(networkName)).not.toContain(network)
  expect(processesOf(network)).toEqual([])
  expect(existsSync(join(tmpdir(), network))).toBe(false)
}

/** The host of each machine, by the last table that was shown. */
function hostsIn(table: string): Map<string, string> {
  const rows = table.matchAll(/^(vm-\d) +Running +True +(mac-\d) /gm)
  return new Map([...rows].map(([, machine = '', host = '']) => [machine, host]))
}

test('shows a fleet that loses the host that leads, and leaves nothing', async () => {
  const { network, ended } = begin('--hosts', '3')
  const name = await network
  const { code, stdout, stderr } = await ended
  expect(code, `${stderr}${stdout}`).toBe(0)
  const lost = /==> (mac-\d) leads the fleet.*: cutting its power/.exec(stderr)?.[1] ?? ''
  const [before = '', story = '', after = ''] = stdout.split('\n\n')
  const [first, last] = [hostsIn(before), hostsIn(after)]
  expect([first.size, new Set(first.values()).size]).toEqual([6, 3])
  expect([last.size, [...last.values()].includes(lost)]).toEqual([6, false])
  const moved = [...first].filter(([, host]) => host === lost)
  expect(moved.length).toBeGreaterThan(0)
  const lines = [...story.matchAll(/^ {2}\+ *([\d.]+) s +(\S+) +(.*)$/gm)]
  const times = lines.map(([, time]) => Number(time))
  expect(times).toEqual(times.toSorted((one, other) => one - other))
  expect(lines.some(([, , who, what]) => who === lost && what?.includes('lease'))).toBe(true)
  for (const [machine] of moved) {
    const own = lines.filter(([, , who]) => who === machine).map(([, , , what]) => what)
    const to = last.get(machine)
    const answer = expect.stringMatching(`^answers SSH: ${machine} `)
    expect(own).toEqual([`given to ${to}`, `QEMU runs on ${to}`, answer])
  }
  console.info(story)
  expectNothingOf(name)
}, 400_000)

test('is ended at any time, from elsewhere', async () => {
  const { network, ended } = begin('--hosts', '3', '--keep')
  const name = await network
  const { code, stderr } = await quickstart('--stop')
  expect(code, stderr).toBe(0)
  expect((await ended).code).toBe(130)
  expectNothingOf(name)
}, 120_000)

test('says who it needs, and what it understands', async () => {
  const asNobody = ['--reuid', '65534', '--regid', '65534', '--clear-groups']
  const refused = await runCli('setpriv', [...asNobody, program, '--hosts', '3'], environment)
  expect(refused.code).toBe(1)
  expect(refused.stderr).toContain('need root')
  for (const args of [['--hosts', '2'], ['--keep'], ['--hosts', '3', '--stop']]) {
    const { code, stderr } = await quickstart(...args)
    expect([code, stderr.startsWith('usage: script/quickstart')]).toEqual([2, true])
  }
})
