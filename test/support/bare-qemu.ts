import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { onTestFinished } from 'vitest'
import { sleep, systemClock } from '../../base/clock.ts'
import { temporaryFolder } from './temporary-folder.ts'

/** A QEMU of a test's own, with a socket for each of the doors that kvm/ uses. */
export interface BareQemu {
  folder: string
  pid: number
  qmp: string
  qmpWatch: string
  console: string
  consoleLog: string
  agent: string
  /** What QEMU wrote to its standard error until now. */
  stderr(): string
  /** Resolves when the process has ended. */
  exited: Promise<{ code: number | null; signal: NodeJS.Signals | null }>
  kill(signal?: NodeJS.Signals): void
}

/**
 * Starts QEMU with the actions, sockets and chardevs of our guests and nothing else.
 * @param args what the test needs beside these
 */
export async function startBareQemu(args: readonly string[]): Promise<BareQemu> {
  const folder = temporaryFolder()
  const path = (name: string) => join(folder, name)
  const server = 'server=on,wait=off'
  const child = spawn(
    'qemu-system-x86_64',
    [
      ['-nodefaults', '-display', 'none', '-accel', 'tcg'],
      ['-action', 'reboot=reset,shutdown=pause,panic=pause'],
      ['-qmp', `unix:qmp.sock,${server}`, '-qmp', `unix:qmp-watch.sock,${server}`],
      args,
    ].flat(),
    { cwd: folder, stdio: ['ignore', 'ignore', 'pipe'] },
  )
  let stderr = ''
  child.stderr.on('data', text => {
    stderr += text
  })
  const exited = exitOf(child)
  onTestFinished(async () => {
    child.kill('SIGKILL')
    await exited
  })
  const deadlineMs = systemClock.monotonicMs() + 10_000
  while (!existsSync(path('qmp-watch.sock'))) {
    if (child.exitCode !== null || systemClock.monotonicMs() > deadlineMs) {
      throw new Error(`QEMU did not start: ${stderr}`)
    }
    await sleep(systemClock, 5)
  }
  return {
    folder,
    pid: child.pid ?? 0,
    qmp: path('qmp.sock'),
    qmpWatch: path('qmp-watch.sock'),
    console: path('console.sock'),
    consoleLog: path('console.log'),
    agent: path('agent.sock'),
    stderr: () => stderr,
    exited,
    kill: signal => void child.kill(signal),
  }
}

/** A serial port as our guests have it: a socket, and a log beside it. */
export const consoleArguments = [
  '-chardev',
  'socket,id=console0,path=console.sock,server=on,wait=off,logfile=console.log,logappend=on',
  '-serial',
  'chardev:console0',
]

async function exitOf(child: ChildProcess): ReturnType<() => BareQemu['exited']> {
  const [code, signal] = await once(child, 'close')
  return { code, signal }
}
