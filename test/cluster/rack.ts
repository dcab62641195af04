import { join } from 'node:path'
import { createDevFleet, type DevFleet } from '../../agent/dev/fleet.ts'
import { checkout } from '../../agent/dev/local-host.ts'
import { systemClock } from '../../base/clock.ts'
import { runCommand } from '../../base/command.ts'
import { systemRandom } from '../../base/random.ts'
import type { VirtualMachine } from '../../resources/virtual-machine.ts'
import { type CliResult, environmentOf, readApi, runCli, until } from '../support/host.ts'
import { type GuestWatcher, watchGuests } from './guest-watcher.ts'

/** What a test may choose about its hosts. */
export interface TestRackInit {
  hosts: number
  racks?: number
  settings?: Record<string, unknown>
}

/** Hosts of a test's own, and what a test does with them. */
export interface TestRack extends DevFleet {
  /** Runs `macfleet` against the daemon of a host; never fails. */
  macfleet(host: string, ...args: string[]): Promise<CliResult>
  /** As `macfleet`, and fails unless it ends with 0. @returns its standard output */
  must(host: string, ...args: string[]): Promise<string>
  /** Reads from the API of a host: a path such as /apis/macfleet.dev/v1/hosts. */
  read<Answer>(host: string, path: string): Promise<Answer>
  /** Waits until a machine is as wanted, as a host tells it. */
  untilMachine(
    host: string,
    name: string,
    wanted: (machine: VirtualMachine) => boolean,
    timeoutMs?: number,
  ): Promise<VirtualMachine>
  /** Records from now on which guests run where; ends with the rack. */
  watch(): Promise<GuestWatcher>
}

/** Components of everything in agent/dev, as they are in service. */
export const devComponents = { run: runCommand, clock: systemClock, random: systemRandom }

/** Makes hosts; call `start()` for their daemons, and `remove()` in the end whatever happened. */
export async function createTestRack(init: TestRackInit): Promise<TestRack> {
  const settings = { cpuOvercommit: 32, ...init.settings }
  const fleet = await createDevFleet({ racks: 1, ...init, settings }, devComponents)
  const environment = environmentOf(fleet.folder)
  const watchers: GuestWatcher[] = []
  const macfleet = (host: string, ...args: string[]) => {
    const all = ['--socket', fleet.host(host).socket, ...args]
    return runCli(join(checkout, 'bin/macfleet'), all, environment)
  }
  const read = <Answer>(host: string, path: string) =>
    readApi<Answer>(fleet.host(host).socket, path)
  return {
    ...fleet,
    macfleet,
    async must(host, ...args) {
      const { code, stdout, stderr } = await macfleet(host, ...args)
      if (code === 0) return stdout
      throw new Error(`macfleet ${args.join(' ')} on ${host}: ${code}: ${stderr}${stdout}`)
    },
    read,
    async untilMachine(host, name, wanted, timeoutMs = 60_000) {
      const path = `/apis/macfleet.dev/v1/namespaces/default/virtualmachines/${name}`
      let last: unknown
      const attempt = async () => {
        const machine = await read<VirtualMachine>(host, path)
        last = machine.status
        return wanted(machine) ? machine : undefined
      }
      return await until(`machine ${name}`, attempt, timeoutMs).catch(error => {
        throw new Error(`${error.message}; last: ${JSON.stringify(last)}`)
      })
    },
    async watch() {
      const watcher = await watchGuests(fleet)
      watchers.push(watcher)
      return watcher
    },
    async remove() {
      for (const watcher of watchers) await watcher.stop()
      await fleet.remove()
    },
  }
}
