import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { chown, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { connect, createServer, type Server, type Socket } from 'node:net'
import { networkInterfaces, tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { runCommand } from '../../base/command.ts'
import { identify, isAlive, type ProcessIdentity } from '../../base/process-identity.ts'
import { createSeededRandom } from '../../base/random.ts'
import { commandLine } from '../../kvm/command-line.ts'
import { containedCommand } from '../../kvm/containment.ts'
import { applyFirewall, attachedNetworks, removeFirewall } from '../../kvm/firewall.ts'
import { type GuestFolder, guestFolder, makeGuestFolder } from '../../kvm/guest-folder.ts'
import { copyBootFile, linkImage } from '../../kvm/image-file.ts'
import type { GuestLaunch, MachineProfile } from '../../kvm/machine.ts'
import { createNvram } from '../../kvm/nvram.ts'
import { createOverlay } from '../../kvm/overlay.ts'
import { choosePorts, defaultPortRange, isPortFree } from '../../kvm/ports.ts'
import { linuxProfile } from '../../kvm/profiles/linux.ts'
import { macosProfile } from '../../kvm/profiles/macos.ts'
import { findUefi } from '../../kvm/qemu.ts'
import { writeSmcKey } from '../../kvm/smc-key.ts'

const root = process.getuid?.() === 0
const guests = join(import.meta.dirname, '../../.macfleet/guests')
const hasMicro = ['vmlinuz', 'initrd'].every(name => existsSync(join(guests, name)))

// Ids and names of this run alone: two runs may share the machine.
const userId = 1_000_000 + process.pid * 8
const user = root ? { userId, groupId: userId } : undefined
const firewallName = `test_${process.pid}`
const facts = { root, systemd: false, firewall: root }
const disk = { qemuImage: 'qemu-img', run: runCommand }

/** mkdtemp makes it 0700: no guest's user may pass. QEMU must manage with its own folder alone. */
let temporary: string
const started: ProcessIdentity[] = []

beforeAll(async () => {
  temporary = await mkdtemp(join(tmpdir(), 'macfleet-contain-'))
})

afterAll(async () => {
  try {
    for (const identity of started) await stop(identity)
    if (root) await removeFirewall(firewallName, runCommand)
  } finally {
    await rm(temporary, { recursive: true })
  }
})

/** Looks again and again; what `look` throws ends it at once. */
async function until<T>(
  what: string,
  look: () => Promise<T | undefined> | T | undefined,
): Promise<T> {
  const deadline = performance.now() + 60_000
  while (performance.now() < deadline) {
    const found = await look()
    if (found !== undefined) return found
    await setTimeout(20)
  }
  throw new Error(`waited in vain for ${what}`)
}

async function stop(identity: ProcessIdentity): Promise<void> {
  if (isAlive(identity)) process.kill(identity.pid, 'SIGKILL')
  await until('the process to end', () => (isAlive(identity) ? undefined : true))
}

async function makeFolder(number: number): Promise<GuestFolder> {
  const roots = { dataRoot: join(temporary, 'data'), runRoot: join(temporary, 'run') }
  const uid = `0000000${number}-4f50-4617-8293-a4b5c6d7e8f9`
  const folder = guestFolder(roots, uid)
  await makeGuestFolder(folder, user)
  return folder
}

const plainLaunch = (folder: GuestFolder): GuestLaunch => ({
  uid: folder.uid,
  name: 'default/contained, really',
  cpuCount: 1,
  memoryBytes: 192 * 2 ** 20,
  accelerator: 'tcg',
  firmware: 'bios',
  boot: { from: 'disk' },
  base: 'none',
  seed: false,
  forwards: [],
})

function contain(args: string[]) {
  const command = 'qemu-system-x86_64'
  return containedCommand({ command, args, user, kvmGroupId: undefined, unit: 'unused' }, facts)
}

/** Starts a guest as the guardian does, and waits for its QEMU to serve QMP. */
async function start(folder: GuestFolder, launch: GuestLaunch, options: StartOptions = {}) {
  const host = { uefi: launch.firmware === 'uefi' ? await findUefi('x86_64') : undefined }
  const argv = commandLine(launch, options.profile ?? linuxProfile, {
    ...(host.uefi ? { uefi: host.uefi } : {}),
  })
  const { command, args } = contain([...argv, ...(options.stopped ? ['-S'] : [])])
  let stderr = ''
  const child = spawn(command, args, { cwd: folder.path, stdio: ['ignore', 'ignore', 'pipe'] })
  child.stderr.on('data', text => {
    stderr += text
  })
  const identity = identify(child.pid ?? 0)
  if (identity === undefined) throw new Error('QEMU was not started')
  started.push(identity)
  await until(`QMP of ${folder.uid}`, async () => {
    if (!isAlive(identity)) throw new Error(`QEMU ended: ${stderr}`)
    return (await greeting(folder.qmp)).includes('"QMP"') ? true : undefined
  })
  return { identity, stderr: () => stderr }
}

interface StartOptions {
  stopped?: boolean
  profile?: MachineProfile
}

/** The first thing that a server says; empty when it says nothing or is not there. */
function greeting(target: string | number): Promise<string> {
  return new Promise(resolve => {
    const socket =
      typeof target === 'string' ? connect(target) : connect({ host: '127.0.0.1', port: target })
    const finish = (text: string) => {
      socket.destroy()
      resolve(text)
    }
    socket.setTimeout(2000, () => finish(''))
    socket.on('error', () => finish(''))
    socket.once('data', data => finish(String(data)))
    socket.once('close', () => finish(''))
  })
}

async function statusOf(identity: ProcessIdentity): Promise<Record<string, string>> {
  const text = await readFile(`/proc/${identity.pid}/status`, 'utf8')
  return Object.fromEntries(
    text
      .split('\n')
      .map(line => line.split(/:\s+/))
      .filter(at => at[1]),
  )
}

describe('the process of a guest', () => {
  test('has a user, a folder and limits of its own, and no rights', async () => {
    const folder = await makeFolder(1)
    await createOverlay({ folder, sizeBytes: 1 << 20, imageBytes: 0, owner: user }, disk)
    const { identity } = await start(folder, plainLaunch(folder), { stopped: true })
    const status = await statusOf(identity)
    expect(status).toMatchObject({ Name: 'qemu-system-x86', NoNewPrivs: '1', Seccomp: '2' })
    const proc = (file: string) => readFile(`/proc/${identity.pid}/${file}`, 'utf8')
    expect(await proc('limits')).toMatch(/Max core file size +0 +0 /)
    expect((await proc('oom_score_adj')).trim()).toBe('500')
    expect((await proc('stat')).split(') ')[1]?.split(' ')[16], 'nice').toBe('19')
    expect((await proc('cmdline')).split('\0')).toContain(
      'guest=default/contained,, really,debug-threads=on',
    )
    expect((await stat(folder.guest)).mode & 0o777).toBe(0o700)
    if (user) {
      const none = '0000000000000000'
      expect(status).toMatchObject({ CapInh: none, CapPrm: none, CapEff: none, CapBnd: none })
      expect(status).toMatchObject({ CapAmb: none })
      expect(status['Groups']?.trim() ?? '').toBe('')
      expect(status['Uid']?.split('\t')).toEqual(Array(4).fill(String(userId)))
      expect(status['Gid']?.split('\t')).toEqual(Array(4).fill(String(userId)))
      expect((await stat(folder.guest)).uid).toBe(userId)
      expect((await stat(folder.path)).uid).toBe(0)
    }
    await stop(identity)
  })

  test('dies with the process that started it', async () => {
    const folder = await makeFolder(2)
    await createOverlay({ folder, sizeBytes: 1 << 20, imageBytes: 0, owner: user }, disk)
    const { command, args } = contain([...commandLine(plainLaunch(folder), linuxProfile, {}), '-S'])
    const script = `const [command, ...args] = process.argv.slice(1)
      const child = require('child_process').spawn(command, args, { stdio: 'ignore' })
      console.log(child.pid)
      setInterval(() => {}, 1e6)`
    const parent = spawn(process.execPath, ['-e', script, '--', command, ...args], {
      cwd: folder.path,
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    let printed = ''
    parent.stdout.on('data', text => {
      printed += text
    })
    try {
      await until('QMP', async () => ((await greeting(folder.qmp)) === '' ? undefined : true))
      const qemu = identify(Number(printed))
      if (qemu === undefined) throw new Error('QEMU does not run')
      started.push(qemu)
      expect(await readFile(`/proc/${qemu.pid}/comm`, 'utf8')).toContain('qemu-system')
      parent.kill('SIGKILL')
      await until('QEMU to die with its parent', () => (isAlive(qemu) ? undefined : true))
    } finally {
      parent.kill('SIGKILL')
    }
  })

  test.skipIf(!existsSync('/usr/share/OVMF'))(
    'can have the shape of macOS, its key out of sight',
    async () => {
      const folder = await makeFolder(3)
      const owner = user
      const key = 'not-a-key-'.repeat(7).slice(0, 64)
      const { variables } = await findUefi('x86_64')
      await createOverlay({ folder, sizeBytes: 1 << 20, imageBytes: 0, owner }, disk)
      await createNvram({ folder, template: variables, owner }, disk)
      await writeSmcKey(folder, key, owner)
      await writeFile(folder.opencore, Buffer.alloc(1 << 20), { mode: 0o444 })
      const launch: GuestLaunch = { ...plainLaunch(folder), firmware: 'uefi' }
      const { identity, stderr } = await start(folder, launch, { profile: macosProfile })
      expect(await readFile(`/proc/${identity.pid}/cmdline`, 'utf8')).not.toContain(key)
      expect(stderr()).not.toContain('AppleSMC')
      await stop(identity)
    },
  )
})

/** A shell on the serial console of a micro guest. */
function openConsole(folder: GuestFolder) {
  const socket: Socket = connect(folder.console)
  let said = ''
  socket.on('data', text => {
    said += text
  })
  socket.on('error', () => {})
  return {
    close: () => socket.destroy(),
    /**
     * Runs a command and returns what it printed. The mark is split, so that its echo is no match.
     */
    async run(command: string): Promise<string> {
      said = ''
      socket.write(`${command}; echo "=en""ded"\n`)
      await until(command, () => (said.includes('=ended') ? true : undefined))
      return said.slice(said.indexOf('\n') + 1, said.indexOf('=ended')).replaceAll('\r', '')
    },
  }
}

async function bootMicro(folder: GuestFolder, launch: GuestLaunch) {
  const { size } = await stat(folder.consoleLog).catch(() => ({ size: 0 }))
  const { identity } = await start(folder, launch)
  await until('the micro guest to be ready', async () => {
    const log = (await readFile(folder.consoleLog)).subarray(size).toString()
    return log.includes('micro guest ready') ? true : undefined
  })
  return { identity, console: openConsole(folder) }
}

function listen(address: string): Promise<{ server: Server; port: number; met: () => number }> {
  let connections = 0
  const server = createServer(socket => {
    connections++
    socket.on('error', () => {})
    socket.end('secret')
  })
  return new Promise(resolve => {
    server.listen(0, address, () => {
      const at = server.address()
      const port = typeof at === 'object' && at ? at.port : 0
      resolve({ server, port, met: () => connections })
    })
  })
}

const digest = async (path: string) =>
  createHash('sha256')
    .update(await readFile(path))
    .digest('hex')

describe.skipIf(!root || !hasMicro)('from inside a guest', () => {
  let folder: GuestFolder
  let launch: GuestLaunch
  const image = () => join(temporary, 'image.raw')
  const imageBytes = 4 << 20

  beforeAll(async () => {
    folder = await makeFolder(4)
    await copyBootFile(join(guests, 'vmlinuz'), folder.kernel)
    await copyBootFile(join(guests, 'initrd'), folder.initrd)
    await writeFile(image(), Buffer.alloc(imageBytes, 'image'), { mode: 0o444 })
    await linkImage(image(), folder.base, user)
    await createOverlay({ folder, sizeBytes: imageBytes, imageBytes, owner: user }, disk)
    // The seed is a whole qcow2 file that names a secret as its backing, one that the guest's user
    // can read: only that nobody asks the header keeps it. The guest copies it to its disk.
    const secret = join(folder.path, 'secret')
    await writeFile(secret, Buffer.alloc(imageBytes, 'the secret of the host '), { mode: 0o444 })
    const evil = ['-u', '-b', '../secret', '-F', 'raw', folder.seed, String(imageBytes)]
    await runCommand('qemu-img', ['create', '-q', '-f', 'qcow2', ...evil], { timeoutMs: 10_000 })
    await chown(folder.seed, userId, userId)
    const wanted = [{ protocol: 'TCP' as const, guestPort: 22 }]
    const components = { random: createSeededRandom(process.pid), isFree: isPortFree }
    launch = {
      ...plainLaunch(folder),
      boot: { from: 'kernel', initrd: true, append: 'console=ttyS0 quiet' },
      base: 'file',
      seed: true,
      forwards: await choosePorts(wanted, [], defaultPortRange, components),
    }
  })

  test('the host is out of reach, and a qcow2 header on the disk is only bytes', async () => {
    const first = await bootMicro(folder, launch)
    const loopback = await listen('127.0.0.1')
    const outside = await listen('0.0.0.0')
    const addresses = Object.values(networkInterfaces()).flatMap(list => list ?? [])
    const hostAddress = addresses.find(at => at.family === 'IPv4' && !at.internal)?.address
    const ask = (address: string, port: number) =>
      first.console.run(`nc -w 3 ${address} ${port} </dev/null`)
    try {
      expect(await ask('10.0.2.2', loopback.port), 'no firewall yet').toContain('secret')
      await applyFirewall(
        {
          name: firewallName,
          users: { first: userId, last: userId },
          resolvers: [],
          closedNetworks: attachedNetworks(networkInterfaces()),
        },
        runCommand,
      )
      const before = loopback.met()
      expect(await ask('10.0.2.2', loopback.port)).not.toContain('secret')
      expect(loopback.met()).toBe(before)
      if (hostAddress) expect(await ask(hostAddress, outside.port)).not.toContain('secret')
      expect(outside.met()).toBe(0)
      expect(await greeting(launch.forwards[0]?.hostPort ?? 0)).toContain('SSH-2.0')
    } finally {
      loopback.server.close()
      outside.server.close()
    }
    expect(await first.console.run('head -c 15 /dev/vda')).toBe('imageimageimage')
    await first.console.run('dd if=/dev/vdb of=/dev/vda bs=64k conv=fsync 2>/dev/null')
    first.console.close()
    await stop(first.identity)

    const second = await bootMicro(folder, launch)
    const size = await second.console.run('cat /sys/block/vda/size')
    expect(Number(size) * 512, 'the size is ours to say').toBe(imageBytes)
    expect(await second.console.run('head -c 3 /dev/vda')).toBe('QFI')
    expect(await second.console.run('cmp -n 65536 /dev/vda /dev/vdb && echo same')).toBe('same\n')
    expect(await second.console.run('grep -c "secret of the host" /dev/vda')).toBe('0\n')
    expect(await second.console.run('grep -c "secret of the host" /dev/vdb')).toBe('0\n')
    second.console.close()
    await stop(second.identity)
    const expected = createHash('sha256').update(Buffer.alloc(imageBytes, 'image')).digest('hex')
    expect(await digest(image()), 'the image is as it was').toBe(expected)
  })
})
