import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { checkout, findLocalHost, startLocalHost, stopLocalHost } from '../agent/dev/local-host.ts'
import { showFleet, stopFleets } from './quickstart-fleet.ts'

/** Elsewhere only for tests, which must not meet somebody's own. */
const folder = process.env['MACFLEET_QUICKSTART_DIR'] ?? join(checkout, '.macfleet')
const guests = join(checkout, '.macfleet/guests')
const cli = join(checkout, 'bin/macfleet')
const machine = 'quickstart'

/** Runs the command line of macfleet. What it says is shown on standard error, or returned. */
function macfleet(args: readonly string[], output: 'show' | 'return' = 'show') {
  const stdio = ['inherit', output === 'show' ? 2 : 'pipe', 'inherit'] as const
  const ours = ['--socket', join(folder, 'run/macfleet.sock'), ...args]
  const { status, stdout } = spawnSync(cli, ours, { stdio: [...stdio], encoding: 'utf8' })
  return { ok: status === 0, output: stdout ?? '' }
}

function need(args: readonly string[], output: 'show' | 'return' = 'show'): string {
  const result = macfleet(args, output)
  if (!result.ok) throw new Error(`macfleet ${args.join(' ')} failed`)
  return result.output
}

/** The objects of a kind in the default namespace. */
function list(kind: string): { metadata: { name: string }; status?: { phase?: string } }[] {
  return JSON.parse(need(['get', kind, '-o', 'json'], 'return')).items
}

function say(text: string): void {
  process.stderr.write(`==> ${text}\n`)
}

function importMicro(): void {
  if (
    list('images').some(image => image.metadata.name === 'micro' && image.status?.phase === 'Ready')
  ) {
    return
  }
  say('importing the micro guest')
  need(['image', 'import', join(guests, 'micro.raw'), '--name', 'micro'])
}

function runMachine(): void {
  const found = list('vms').find(vm => vm.metadata.name === machine)
  if (found !== undefined) {
    say(`starting the virtual machine ${machine}`)
    need(['start', machine, '--wait'])
    return
  }
  say(`running the virtual machine ${machine}`)
  need(['run', 'micro', '--name', machine, '--memory', '256Mi', '--wait'])
}

function farewell(): string {
  const line = (command: string, meaning: string) => `  ${command.padEnd(36)} ${meaning}`
  return [
    '',
    'The virtual machine is up, and the daemon goes on. Try:',
    line('bin/macfleet get vms', 'what runs'),
    line(`bin/macfleet ssh ${machine}`, 'a shell in it'),
    line(`bin/macfleet console ${machine}`, 'its serial console (leave with Ctrl-])'),
    line('bin/macfleet run micro --wait', 'another one'),
    line('script/quickstart --hosts 3', 'a fleet, and how it loses a host (needs root)'),
    line('script/quickstart --stop', 'ends the machines and the daemon'),
    '',
  ].join('\n')
}

async function start(): Promise<void> {
  if (findLocalHost(folder) === undefined) say('starting macfleetd')
  // A machine to try things on: many small guests that hardly compute.
  const settings = { cpuOvercommit: 16 }
  const host = await startLocalHost({ folder, settings })
  need(['context', 'set', 'quickstart', '--socket', host.socket, '--use'], 'return')
  importMicro()
  runMachine()
  say(`uname -a in ${machine}, over SSH:`)
  process.stdout.write(need(['ssh', machine, '--', 'uname', '-a'], 'return'))
  process.stderr.write(`${farewell()}\n`)
}

async function stop(): Promise<void> {
  if (findLocalHost(folder) !== undefined) {
    const running = list('vms').filter(vm => vm.status?.phase === 'Running')
    for (const vm of running) {
      say(`stopping the virtual machine ${vm.metadata.name}`)
      macfleet(['stop', vm.metadata.name, '--wait'])
    }
  }
  if (existsSync(folder)) await stopLocalHost(folder)
  await stopFleets(folder)
  say('nothing of it runs any more')
}

interface Options {
  hosts?: number
  keep: boolean
  stop: boolean
}

/** @returns undefined when the command line can't be understood */
function readOptions(): Options | undefined {
  try {
    const { values } = parseArgs({
      options: {
        hosts: { type: 'string' },
        keep: { type: 'boolean', default: false },
        stop: { type: 'boolean', default: false },
      },
    })
    const { keep, stop } = values
    if (values.hosts === undefined) return keep ? undefined : { keep, stop }
    // Two hosts are left with no majority when one is lost.
    const hosts = /^\d{1,2}$/.test(values.hosts) ? Number(values.hosts) : 0
    return hosts < 3 || stop ? undefined : { hosts, keep, stop }
  } catch {
    return undefined
  }
}

async function run({ hosts, keep, stop: isStop }: Options): Promise<number> {
  if (hosts !== undefined) return await showFleet({ hosts, keep, folder })
  await (isStop ? stop() : start())
  return 0
}

const options = readOptions()
if (options === undefined) {
  process.stderr.write('usage: script/quickstart [--hosts N [--keep] | --stop], N from 3 on\n')
  process.exit(2)
}
try {
  process.exit(await run(options))
} catch (error) {
  process.stderr.write(`error: ${error instanceof Error ? error.message : error}\n`)
  process.exit(1)
}
