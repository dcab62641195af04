import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { checkout, findLocalHost, startLocalHost, stopLocalHost } from './local-host.ts'

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
  say('nothing of it runs any more')
}

const [flag, ...rest] = process.argv.slice(2)
if (rest.length > 0 || (flag !== undefined && flag !== '--stop')) {
  process.stderr.write('usage: script/quickstart [--stop]\n')
  process.exit(2)
}
try {
  await (flag === '--stop' ? stop() : start())
} catch (error) {
  process.stderr.write(`error: ${error instanceof Error ? error.message : error}\n`)
  process.exit(1)
}
