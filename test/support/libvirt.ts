import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { endProcess } from '../../agent/dev/local-host.ts'
import { until } from './host.ts'

/** The guest that libvirt is given. */
export interface LibvirtGuest {
  name: string
  memoryMebibytes: number
  /** Files that libvirt may change the owner of. */
  disk: string
  base: string
  seed: string
  /** Where virtlogd writes what the serial console says. */
  consoleLog: string
}

/** A libvirt of our own: its folders, sockets and processes are nobody else's. */
export interface Libvirt {
  define(guest: LibvirtGuest): Promise<void>
  /** Says `virsh start`, and resolves when libvirt has said that it is done. */
  start(name: string): Promise<void>
  destroy(name: string): Promise<void>
  stop(): Promise<void>
}

const commandTimeoutMs = 60_000
const stopTimeoutMs = 10_000

/**
 * Runs in a mount namespace of its own, where libvirt finds our folders in places that it knows.
 * The /dev/kvm there is one that its guests' user may open: libvirt looks at that node at every
 * start, and asks QEMU anew what it can when the node says otherwise than what it learnt before.
 */
const script = `
set -eu
folder=$1
mkdir -p "$folder"/{etc,lib,log,cache}
cp -a /etc/libvirt/. "$folder/etc/"
mknod "$folder/kvm" c 10 232
chown root:kvm "$folder/kvm"
chmod 0660 "$folder/kvm"
mount --bind "$folder/kvm" /dev/kvm
mount -t tmpfs -o mode=0755 tmpfs /run
mount --bind "$folder/lib" /var/lib/libvirt
mount --bind "$folder/etc" /etc/libvirt
mount --bind "$folder/log" /var/log/libvirt
mount --bind "$folder/cache" /var/cache/libvirt
mkdir /run/libvirt
virtlogd --daemon --pid-file "$folder/virtlogd.pid"
exec libvirtd --pid-file "$folder/libvirtd.pid"
`

/** Why there can be no libvirt here; undefined when there can. */
export function libvirtObstacle(): string | undefined {
  if (process.getuid?.() !== 0) return 'not root'
  const missing = ['/usr/sbin/libvirtd', '/usr/sbin/virtlogd', '/usr/bin/virsh', '/dev/kvm']
  const absent = missing.filter(path => !existsSync(path))
  return absent.length === 0 ? undefined : `missing: ${absent.join(', ')}`
}

/**
 * Starts libvirt and a virsh that stays connected, so that what is measured is a request and not
 * the start of a client.
 */
export async function startLibvirt(folder: string): Promise<Libvirt> {
  mkdirSync(folder, { recursive: true, mode: 0o755 })
  const log = join(folder, 'output.log')
  const daemon = spawn('unshare', ['--mount', 'bash', '-c', script, 'libvirt', folder], {
    stdio: ['ignore', 'pipe', 'pipe'],
    detached: true,
  })
  const output: string[] = []
  for (const stream of [daemon.stdout, daemon.stderr]) {
    stream.on('data', bytes => output.length < 1000 && output.push(String(bytes)))
  }
  const stop = async () => {
    const pidFiles = ['libvirtd.pid', 'virtlogd.pid'].map(name => join(folder, name))
    for (const pid of [...pidFiles.map(readPid), daemon.pid]) {
      if (pid !== undefined) await endProcess(pid, stopTimeoutMs)
    }
    writeFileSync(log, output.join(''))
  }
  try {
    const pid = await until('libvirtd is there', () => {
      if (daemon.exitCode !== null) throw new Error(`libvirtd: ${output.join('').trim()}`)
      return readPid(join(folder, 'libvirtd.pid'))
    })
    return await connect(folder, pid, stop)
  } catch (error) {
    await stop()
    throw error
  }
}

function readPid(path: string): number | undefined {
  if (!existsSync(path)) return undefined
  return Number(readFileSync(path, 'utf8').trim()) || undefined
}

async function connect(folder: string, pid: number, stop: () => Promise<void>): Promise<Libvirt> {
  const enter = ['--mount', `--target=${pid}`]
  const args = [...enter, 'virsh', '--quiet', '--connect', 'qemu:///system']
  // Ctrl-C is for us: what runs in a session of its own is still there to end the guest.
  const client = spawn('nsenter', args, { detached: true })
  const virsh = createSession(client)
  // Libvirt asks QEMU what it can when it is first asked; that takes seconds, and then it knows.
  const ask = () => virsh('version').then(Boolean, () => undefined)
  await until('virsh is connected', ask, commandTimeoutMs)
  return {
    async define(guest) {
      const path = join(folder, `${guest.name}.xml`)
      writeFileSync(path, domain(guest))
      await virsh(`define ${path}`)
    },
    start: async name => void (await virsh(`start ${name}`)),
    destroy: async name => void (await virsh(`destroy ${name}`)),
    async stop() {
      client.stdin.end()
      client.kill()
      await stop()
    },
  }
}

/** Gives virsh one command after the other and reads what it answers. */
function createSession(client: ChildProcess): (command: string) => Promise<string> {
  let output = ''
  let count = 0
  for (const stream of [client.stdout, client.stderr]) {
    stream?.on('data', bytes => {
      output += bytes
    })
  }
  client.stdin?.on('error', () => {})
  return async command => {
    const mark = `done-${++count}`
    output = ''
    client.stdin?.write(`${command}\necho ${mark}\n`)
    const answer = await until(
      `virsh ${command}`,
      () => {
        if (client.exitCode !== null) throw new Error(`virsh ended: ${output}`)
        return output.includes(`\n${mark}`) ? output : undefined
      },
      commandTimeoutMs,
    )
    const problems = answer.split('\n').filter(line => line.startsWith('error: '))
    if (problems.length > 0) throw new Error(`virsh ${command}: ${problems.join(' ')}`)
    return answer
  }
}

const address = (slot: number) =>
  `<address type='pci' domain='0' bus='0' slot='${slot}' function='0'/>`

/**
 * The machine that macfleet's profile `linux` makes, device for device and slot for slot. Libvirt
 * has no words for a q35 without SATA controller and SMBus; without them its firmware has less to
 * look for, as ours.
 */
function domain(guest: LibvirtGuest): string {
  return `<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>${guest.name}</name>
  <genid/>
  <memory unit='MiB'>${guest.memoryMebibytes}</memory>
  <vcpu>1</vcpu>
  <iothreads>1</iothreads>
  <os><type arch='x86_64' machine='q35'>hvm</type></os>
  <features><acpi/><apic/><vmport state='off'/></features>
  <cpu mode='maximum'/>
  <clock offset='utc'/>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <controller type='usb' model='none'/>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2' discard='unmap' detect_zeroes='unmap' iothread='1'/>
      <source file='${guest.disk}'/>
      <backingStore type='file'>
        <format type='raw'/><source file='${guest.base}'/><backingStore/>
      </backingStore>
      <target dev='vda' bus='virtio'/><boot order='1'/>${address(2)}
    </disk>
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw'/><source file='${guest.seed}'/>
      <target dev='vdb' bus='virtio'/><readonly/>${address(3)}
    </disk>
    <interface type='user'><model type='virtio'/><rom enabled='no'/>${address(4)}</interface>
    <controller type='virtio-serial' index='0'>${address(5)}</controller>
    <serial type='unix'>
      <source mode='bind' path='${guest.consoleLog}.sock'/>
      <log file='${guest.consoleLog}' append='on'/><target port='0'/>
    </serial>
    <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
    <video><model type='vga' vram='16384'/>${address(1)}</video>
    <graphics type='vnc'><listen type='socket'/></graphics>
    <rng model='virtio'><backend model='builtin'/>${address(6)}</rng>
    <memballoon model='virtio' autodeflate='on' freePageReporting='on'>${address(7)}</memballoon>
    <panic model='isa'/>
  </devices>
  <qemu:commandline>
    <qemu:arg value='-machine'/><qemu:arg value='sata=off,smbus=off'/>
  </qemu:commandline>
</domain>
`
}
