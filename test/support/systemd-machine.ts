import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { sleep, systemClock } from '../../base/clock.ts'
import { runCommand } from '../../base/command.ts'

/** A Debian with systemd as PID 1 in a container on this machine, with no network. */
export interface SystemdMachine {
  /** Its root, as seen from here. */
  root: string
  /** Runs a shell script in it and returns what it printed. @throws commandFailed */
  run(script: string): Promise<string>
  /** Ends it, at once, and removes all of it. */
  remove(): Promise<void>
}

const checkout = join(import.meta.dirname, '../..')
const hierarchies = ['/sys/fs/cgroup', '/sys/fs/cgroup/systemd', '/sys/fs/cgroup/unified']
const path = '/usr/sbin:/usr/bin:/sbin:/bin'

/**
 * Two containers on one machine need control groups of their own, or their systemds would take each
 * other's services for theirs.
 */
const enter = `
  for at in ${hierarchies.join(' ')}; do
    [ -e "$at/cgroup.procs" ] || continue
    mkdir -p "$at/$0" && echo $$ > "$at/$0/cgroup.procs"
  done
  exec systemd-nspawn -q -D "$1" --private-network --keep-unit --register=no -b`

/** Unpacks the tree that script/systemd-tree builds (a minute, the first time), without booting it. */
export function unpackSystemdTree(): string {
  const tree = execFileSync(join(checkout, 'script/systemd-tree'), { encoding: 'utf8' }).trim()
  const root = mkdtempSync(join(tmpdir(), 'macfleet-test-'))
  execFileSync('tar', ['-C', root, '-xf', tree])
  return root
}

/** Boots a tree and waits until all its services have started. */
export async function bootSystemdMachine(root: string): Promise<SystemdMachine> {
  const name = basename(root)
  let console = ''
  const container = spawn('sh', ['-c', enter, name, root], {
    env: { PATH: path, SYSTEMD_NSPAWN_UNIFIED_HIERARCHY: '1' },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  for (const stream of [container.stdout, container.stderr]) {
    stream.on('data', text => {
      console = `${console}${text}`.slice(-4_000)
    })
  }
  const remove = async (): Promise<void> => {
    await endContainer(container)
    for (const at of hierarchies) removeGroups(join(at, name))
    rmSync(root, { recursive: true, force: true })
  }
  const run = async (script: string): Promise<string> => {
    const pid = leaderOf(container)
    if (pid === undefined) throw new Error(`it does not run: ${console}`)
    const args = ['-t', String(pid), '-a', 'sh', '-ec', script]
    const environment = { PATH: path, HOME: '/root', TERM: 'dumb' }
    return (await runCommand('nsenter', args, { timeoutMs: 60_000, environment })).stdout.trim()
  }
  try {
    await bootUntil(run, () => console)
  } catch (error) {
    await remove()
    throw error
  }
  return { root, run, remove }
}

async function bootUntil(run: SystemdMachine['run'], console: () => string): Promise<void> {
  const deadlineMs = systemClock.monotonicMs() + 60_000
  for (;;) {
    const state = await run('systemctl is-system-running || true').catch(() => '')
    if (state === 'running' || state === 'degraded') return
    if (systemClock.monotonicMs() > deadlineMs) throw new Error(`it did not boot: ${console()}`)
    await sleep(systemClock, 50)
  }
}

/** PID 1 of the container: the only child of systemd-nspawn. */
function leaderOf(container: ChildProcess): number | undefined {
  try {
    const file = `/proc/${container.pid}/task/${container.pid}/children`
    return Number(readFileSync(file, 'utf8').trim().split(' ')[0]) || undefined
  } catch {
    return undefined
  }
}

/** The end of its PID 1 is the end of every process in a container. */
async function endContainer(container: ChildProcess): Promise<void> {
  if (container.exitCode !== null || container.signalCode !== null) return
  const exited = once(container, 'exit')
  const pid = leaderOf(container)
  if (pid === undefined) container.kill('SIGKILL')
  else process.kill(pid, 'SIGKILL')
  await exited
}

function removeGroups(folder: string): void {
  if (!existsSync(folder)) return
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    if (entry.isDirectory()) removeGroups(join(folder, entry.name))
  }
  rmdirSync(folder)
}
