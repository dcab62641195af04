import { type ChildProcess, spawn } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { readFile, stat, writeFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { describe, expect, onTestFinished, test } from 'vitest'
import { sleep, systemClock } from '../../base/clock.ts'
import { runCommand } from '../../base/command.ts'
import { defaultLimits } from '../../base/limits.ts'
import { silentLog } from '../../base/log.ts'
import { commandLine } from '../../kvm/command-line.ts'
import { containedCommand } from '../../kvm/containment.ts'
import { attachGuest, type Guest } from '../../kvm/guest.ts'
import { type GuestFolder, guestFolder, makeGuestFolder } from '../../kvm/guest-folder.ts'
import { copyBootFile, linkImage } from '../../kvm/image-file.ts'
import type { GuestLaunch } from '../../kvm/machine.ts'
import { createOverlay } from '../../kvm/overlay.ts'
import { linuxProfile } from '../../kvm/profiles/linux.ts'
import type { RunState } from '../../kvm/qmp/commands.ts'
import { microGuestIsBuilt } from '../support/demo-guest.ts'
import { temporaryFolder } from '../support/temporary-folder.ts'

const root = process.getuid?.() === 0
const guests = join(import.meta.dirname, '../../.macfleet/guests')
// Ids of this run alone: two runs may share the machine.
const userId = 1_100_000 + process.pid * 8
const user = root ? { userId, groupId: userId } : undefined
const disk = { qemuImage: 'qemu-img', run: runCommand }
const components = { clock: systemClock, log: silentLog, limits: defaultLimits }
const imageBytes = 24 << 20
const patienceMs = 60_000

async function until(what: string, look: () => Promise<boolean> | boolean): Promise<void> {
  const deadlineMs = systemClock.monotonicMs() + patienceMs
  while (!(await look())) {
    if (systemClock.monotonicMs() > deadlineMs) throw new Error(`waited in vain for ${what}`)
    await sleep(systemClock, 20)
  }
}

/** A process that exports a file, as the daemon's thread does. */
interface Exporter {
  tell(line: string): Promise<void>
  kill(): Promise<void>
}

async function startExporter(socket: string, file: string): Promise<Exporter> {
  const script = join(import.meta.dirname, '../support/export-child.ts')
  const args = [script, socket, file, ...(user ? [String(userId)] : [])]
  const child = spawn(process.execPath, args, { stdio: ['pipe', 'pipe', 'inherit'] })
  onTestFinished(() => void child.kill('SIGKILL'))
  const lines = createInterface(child.stdout)
  const [first] = await once(lines, 'line')
  expect(first).toBe('ready')
  return {
    async tell(line) {
      const heard = once(lines, 'line')
      child.stdin.write(`${line}\n`)
      await heard
    },
    kill: () => kill(child),
  }
}

async function kill(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const ended = once(child, 'exit')
  child.kill('SIGKILL')
  await ended
}

/** A micro guest with a disk of random bytes that are not here. */
interface LazyGuest {
  folder: GuestFolder
  guest: Guest
  image: string
  checksum: string
  exporter: Exporter
  /** Runs a command in the guest. @returns what it printed, when it is done */
  run(command: string): Promise<string>
}

async function bootLazily(): Promise<LazyGuest> {
  const temporary = temporaryFolder()
  const roots = { dataRoot: join(temporary, 'data'), runRoot: join(temporary, 'run') }
  const folder = guestFolder(roots, '0b1c2d3e-4f50-4617-8293-a4b5c6d7e8f9')
  await makeGuestFolder(folder, user)
  const image = join(temporary, 'image.raw')
  const content = randomBytes(imageBytes)
  await writeFile(image, content, { mode: 0o444 })
  const exporter = await startExporter(folder.image, image)
  await copyBootFile(join(guests, 'vmlinuz'), folder.kernel)
  await copyBootFile(join(guests, 'initrd'), folder.initrd)
  await createOverlay({ folder, sizeBytes: imageBytes, imageBytes, owner: user }, disk)
  const launch: GuestLaunch = {
    uid: folder.uid,
    name: 'default/lazy',
    cpuCount: 1,
    memoryBytes: 192 * 2 ** 20,
    accelerator: 'tcg',
    firmware: 'bios',
    boot: { from: 'kernel', initrd: true, append: 'console=ttyS0 quiet no_timer_check' },
    base: 'export',
    seed: false,
    forwards: [],
  }
  const { command, args } = containedCommand(
    {
      command: 'qemu-system-x86_64',
      args: commandLine(launch, linuxProfile, {}),
      user,
      kvmGroupId: undefined,
      unit: 'unused',
    },
    { root, systemd: false, firewall: false },
  )
  const qemu = spawn(command, args, { cwd: folder.path, stdio: ['ignore', 'ignore', 'inherit'] })
  const guest = attachGuest({ folder }, components)
  onTestFinished(async () => {
    await guest.close()
    await kill(qemu)
  })
  await until('the micro guest to be ready', async () =>
    (await readFile(folder.consoleLog, 'utf8').catch(() => '')).includes('micro guest ready'),
  )
  const checksum = createHash('sha256').update(content).digest('hex')
  return { folder, guest, image, checksum, exporter, run: openShell(folder) }
}

function openShell(folder: GuestFolder): LazyGuest['run'] {
  const socket = connect(folder.console)
  let said = ''
  socket.on('data', text => {
    said += text
  })
  socket.on('error', () => {})
  onTestFinished(() => void socket.destroy())
  return async command => {
    said = ''
    // The mark is split, so that its echo is no match.
    socket.write(`${command}; echo "=en""ded"\n`)
    await until(command, () => said.includes('=ended'))
    return said.slice(said.indexOf('\n') + 1, said.indexOf('=ended')).replaceAll('\r', '')
  }
}

test('clients of others read the export as it is', async () => {
  const folder = temporaryFolder()
  const [image, copy, socket] = ['image', 'copy', 'nbd.sock'].map(name => join(folder, name))
  const content = Buffer.concat([randomBytes(1 << 20), Buffer.alloc(3 << 20), randomBytes(5000)])
  await writeFile(image ?? '', content, { mode: 0o444 })
  await startExporter(socket ?? '', image ?? '')
  const uri = `nbd+unix:///?socket=${socket}`
  const run = (command: string, args: string[]) => runCommand(command, args, { timeoutMs: 10_000 })
  expect((await run('nbdinfo', ['--size', uri])).stdout.trim()).toBe(String(content.length))
  expect((await run('nbdinfo', ['--is', 'read-only', uri])).stdout).toBe('')
  await run('nbdcopy', [uri, copy ?? ''])
  expect(content.equals(await readFile(copy ?? ''))).toBe(true)
  const compared = await run('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', uri, image ?? ''])
  expect(compared.stdout).toContain('identical')
})

const readDisk = 'echo 3 >/proc/sys/vm/drop_caches; sha256sum </dev/vda'

const isIn = (guest: Guest, runState: RunState) =>
  guest.waitFor(status => status.runState === runState, { what: runState, timeoutMs: patienceMs })

describe.runIf(microGuestIsBuilt)('a guest whose image is on its way', () => {
  test('changes to the file under load, and does without the export', async () => {
    const { guest, folder, image, checksum, exporter, run } = await bootLazily()
    expect((await stat(folder.image)).mode & 0o777).toBe(0o600)
    await exporter.tell('20')
    const reading = run(readDisk)
    await until('the guest to read', async () => (await readBytes(guest)) > imageBytes / 8)
    await linkImage(image, folder.base, user)
    const before = await readBytes(guest)
    expect(before).toBeLessThan(imageBytes)
    await guest.perform({ kind: 'useImageFile' })
    await guest.perform({ kind: 'useImageFile' })
    await exporter.kill()
    expect(await reading).toContain(checksum)
    expect(await run(readDisk)).toContain(checksum)
    expect(guest.status().runState).toBe('running')
    const nodes = await guest.query('query-named-block-nodes', { flat: true })
    expect(nodes.map(node => node['node-name'])).not.toContain('export')
    expect(nodes.map(node => node['node-name'])).toContain('base')
  })

  test('waits for an export that was killed, and for a source that is gone', async () => {
    const { guest, folder, image, checksum, exporter, run } = await bootLazily()
    await exporter.tell('5')
    const reading = run(readDisk)
    await until('the guest to read', async () => (await readBytes(guest)) > imageBytes / 8)
    await exporter.kill()
    const again = await startExporter(folder.image, image)
    expect(await reading).toContain(checksum)
    expect(guest.status().runState).toBe('running')

    await again.tell('fail')
    const failing = run(readDisk)
    await isIn(guest, 'io-error')
    await guest.perform({ kind: 'resume' })
    await isIn(guest, 'io-error')
    await again.tell('0')
    await guest.perform({ kind: 'resume' })
    expect(await failing).toContain(checksum)
  })
})

/** Bytes that the guest has read from its disk. */
async function readBytes(guest: Guest): Promise<number> {
  const statistics = await guest.query('query-blockstats', {})
  return statistics.find(({ qdev }) => qdev?.includes('disk0'))?.stats.rd_bytes ?? 0
}
