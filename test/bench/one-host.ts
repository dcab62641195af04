import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  chmodSync,
  copyFileSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
} from 'node:fs'
import { rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { checkout } from '../../agent/dev/local-host.ts'
import { systemClock } from '../../base/clock.ts'
import { runCommand } from '../../base/command.ts'
import { defaultLimits } from '../../base/limits.ts'
import { createApiClient } from '../../interface/cli/api-client.ts'
import { type GuestFolder, guestFolder, makeGuestFolder } from '../../kvm/guest-folder.ts'
import { createOverlay } from '../../kvm/overlay.ts'
import { timeToFirstByte } from '../support/console-log.ts'
import { createTestHost, isReady, qemuPids, type TestHost, until } from '../support/host.ts'
import { libvirtObstacle, startLibvirt } from '../support/libvirt.ts'
import { observe, readPssMegabytes } from '../support/process-usage.ts'
import {
  type Bench,
  type BenchContext,
  type Contender,
  type Figure,
  figureOf,
  measureInTurns,
  ratioOf,
} from './harness.ts'

type Figures = Record<string, Figure>

const name = 'bench'
const memoryMebibytes = 256
const firstByteTimeoutMs = 60_000
const patienceMs = { starts: 400_000, listing: 60_000, overlays: 60_000 }
const apiPath = `/apis/macfleet.dev/v1/namespaces/default/virtualmachines/${name}`

/** What one host promises: starts, the daemon's idle footprint, the command line, overlays. */
export const bench: Bench = {
  timeoutMs: 20 * 60_000,
  async run(context) {
    const { quick, say, afterwards } = context
    const test = await createTestHost()
    afterwards(() => test.remove())
    say('importing the micro guest')
    await test.must('image', 'import', join(checkout, '.macfleet/guests/micro.raw'), '--name', name)
    // A daemon as it is after an upgrade; below once more, after work.
    await test.kill()
    await test.start()
    const idleMs = quick ? 6_000 : 60_000
    const none = await measureIdle(test, 'no machine', idleMs, context)
    await test.must('run', name, '--name', name, '--memory', `${memoryMebibytes}Mi`)
    await test.untilMachine(name, isReady, 120_000)
    const one = await measureIdle(test, 'one running machine', idleMs, context)
    const listing = await measureListing(test, quick ? 3 : 20, context)
    const overlays = await measureOverlays(quick ? 3 : 20, context)
    const starts = await measureStarts(test, quick ? 2 : 15, context)
    const after = readPssMegabytes(test.host.pid)
    return {
      ...starts,
      daemonPssNoMachine: pssOf('macfleetd idle, no machine: largest PSS', none.pssMegabytes),
      daemonPssOneMachine: pssOf('macfleetd idle, one machine: largest PSS', one.pssMegabytes),
      daemonPssAfterStarts: pssOf('macfleetd after all these starts: PSS', [after]),
      daemonCpuNoMachine: cpuOf('macfleetd idle, no machine: CPU', none.processorPercent),
      daemonCpuOneMachine: cpuOf('macfleetd idle, one machine: CPU', one.processorPercent),
      ...guardianFigures(one.guardian),
      ...listing,
      ...overlays,
    }
  },
}

function pssOf(what: string, readings: readonly number[]): Figure {
  const figure = figureOf(what, 'MB', readings, { value: 110, bound: 'atMost' })
  return { ...figure, value: Math.max(...readings) }
}

function cpuOf(what: string, percent: number): Figure {
  return figureOf(what, '% of a core', [percent], { value: 1, bound: 'atMost' })
}

function guardianFigures({ pssMegabytes, processorPercent }: Awaited<ReturnType<typeof observe>>) {
  return {
    guardianPss: figureOf('guardian, one machine: PSS', 'MB', pssMegabytes),
    guardianCpu: figureOf('guardian, one machine: CPU', '% of a core', [processorPercent]),
  }
}

async function measureIdle(test: TestHost, what: string, forMs: number, context: BenchContext) {
  context.say(`watching the idle daemon with ${what} for ${forMs / 1000} s`)
  const guardianPid = test
    .processes()
    .find(({ command }) => command.includes('guardian/serve.ts'))?.pid
  if (guardianPid === undefined) throw new Error('there is no guardian')
  const [daemon, guardian] = await Promise.all([
    observe(test.host.pid, forMs, context.signal),
    observe(guardianPid, forMs, context.signal),
  ])
  return { ...daemon, guardian }
}

/** Whole processes, as somebody at a prompt waits for them. */
async function measureListing(
  test: TestHost,
  rounds: number,
  context: BenchContext,
): Promise<Figures> {
  const took = async (work: () => Promise<unknown>) => {
    const beganMs = performance.now()
    await work()
    return performance.now() - beganMs
  }
  const nothing = { timeoutMs: 10_000 }
  const results = await measureInTurns(
    {
      getVms: () => took(() => test.must('get', 'vms')),
      node: () => took(() => runCommand(process.execPath, ['--eval', '0'], nothing)),
    },
    { rounds, patienceMs: context.quick ? 0 : patienceMs.listing },
    context,
  )
  const { getVms = [], node = [] } = results
  const target = { value: 150, bound: 'atMost' } as const
  return {
    getVms: figureOf('macfleet get vms, whole process', 'ms', getVms, target),
    nodeStart: figureOf('the floor: node --eval 0', 'ms', node),
    getVmsOverNode: ratioOf('macfleet get vms / node --eval 0', getVms, node),
  }
}

async function measureOverlays(rounds: number, context: BenchContext): Promise<Figures> {
  const root = mkdtempSync(join(tmpdir(), 'mb-'))
  context.afterwards(() => rm(root, { recursive: true, force: true }))
  const uid = '00000000-0000-4000-8000-000000000000'
  const folder = guestFolder({ dataRoot: join(root, 'data'), runRoot: join(root, 'run') }, uid)
  const owner = undefined
  await makeGuestFolder(folder, owner)
  const tools = { qemuImage: 'qemu-img', run: runCommand }
  const size = { sizeBytes: 2 ** 30, imageBytes: 2 ** 26 }
  const timed = (work: () => Promise<unknown>) => async () => {
    rmSync(folder.disk, { force: true })
    const beganMs = performance.now()
    await work()
    return performance.now() - beganMs
  }
  const options = ['-o', 'cluster_size=128k,extended_l2=on']
  const plain = ['create', '-q', '-f', 'qcow2', ...options, folder.disk, String(size.sizeBytes)]
  const { overlay = [], qemuImg = [] } = await measureInTurns(
    {
      overlay: timed(() => createOverlay({ folder, ...size, owner }, tools)),
      qemuImg: timed(() => runCommand('qemu-img', plain, { timeoutMs: 10_000 })),
    },
    { rounds, patienceMs: context.quick ? 0 : patienceMs.overlays },
    context,
  )
  return {
    overlay: figureOf("a machine's overlay, made and on disk for good", 'ms', overlay),
    overlayQemuImg: figureOf('the floor: qemu-img create, not synced', 'ms', qemuImg),
    overlayOverQemuImg: ratioOf('overlay / qemu-img create', overlay, qemuImg),
  }
}

/** The parts of the machine that all contenders start. */
interface Guest {
  folder: GuestFolder
  /** QEMU and its arguments, as the guest ran with them. */
  command: string[]
}

async function measureStarts(
  test: TestHost,
  rounds: number,
  context: BenchContext,
): Promise<Figures> {
  const macfleet = macfleetStarts(test, context.signal)
  const machine = await test.machine(name)
  const { dataDir, runDir } = test.host
  const roots = { dataRoot: join(dataDir, 'guests'), runRoot: join(runDir, 'guests') }
  const folder = guestFolder(roots, machine.metadata.uid ?? '')
  const [pid] = qemuPids(test)
  const command = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').slice(0, -1)
  await macfleet.stop()
  const guest = { folder, command }
  const contenders: Record<string, Contender> = {
    bare: bareStart(guest, test.folder, context),
    macfleet: () => macfleet.start(folder),
    macfleetFirst: async () => {
      // As a machine that never ran: everything of it has to be made.
      for (const path of [folder.disk, folder.seed, folder.seedDigest]) rmSync(path)
      return await macfleet.start(folder)
    },
  }
  const obstacle = libvirtObstacle()
  if (obstacle === undefined) {
    contenders['libvirt'] = await libvirtStart(guest, context)
  } else context.say(`no comparison with libvirt: ${obstacle}`)
  return startFigures(
    await measureInTurns(
      contenders,
      { rounds, patienceMs: context.quick ? 0 : patienceMs.starts },
      context,
    ),
  )
}

function startFigures(results: Record<string, number[]>): Figures {
  const { bare = [], macfleet = [], macfleetFirst = [], libvirt } = results
  const figures: Figures = {
    startOverBareQemu: ratioOf(
      'start to first console byte: macfleet / bare QEMU with the same arguments',
      macfleet,
      bare,
      { value: 1.1, bound: 'atMost' },
    ),
    ...(libvirt && {
      startOverLibvirt: ratioOf('the same: macfleet / virsh start', macfleet, libvirt, {
        value: 1,
        bound: 'below',
      }),
      libvirtOverBareQemu: ratioOf('the same: virsh start / bare QEMU', libvirt, bare),
    }),
    firstStartOverBareQemu: ratioOf(
      'the same, first start: overlay and seed are made: macfleet / bare QEMU',
      macfleetFirst,
      bare,
    ),
    bareStart: figureOf('first console byte: bare QEMU', 'ms', bare),
    macfleetStart: figureOf('first console byte: macfleet', 'ms', macfleet),
  }
  if (libvirt !== undefined) {
    figures['libvirtStart'] = figureOf('first console byte: virsh start', 'ms', libvirt)
  }
  return figures
}

/** As `macfleet start` and `stop` ask, without a process of their own. */
function macfleetStarts(test: TestHost, signal: AbortSignal) {
  const components = { clock: systemClock, signal }
  const client = createApiClient({ socket: test.host.socket, limits: defaultLimits }, components)
  const contentType = 'application/merge-patch+json'
  const patch = (spec: object) => client.request('PATCH', apiPath, { body: { spec }, contentType })
  const stop = async (): Promise<void> => {
    // A guest that has only begun to boot can't heed a power button.
    await patch({ powerState: 'Stopped', terminationGracePeriodSeconds: 0 })
    await until('the machine is stopped', async () => {
      const { status } = (await client.request('GET', apiPath)) as { status?: { phase?: string } }
      return status?.phase === 'Stopped' && qemuPids(test).length === 0 ? true : undefined
    })
  }
  const start = async ({ consoleLog }: GuestFolder): Promise<number> => {
    const request = () => patch({ powerState: 'Running' })
    const tookMs = await timeToFirstByte(consoleLog, request, firstByteTimeoutMs)
    await stop()
    return tookMs
  }
  return { start, stop }
}

/** Puts the files of a stopped guest into another folder. */
function copyGuest(guest: Guest, folder: string, image: typeof copyFileSync): void {
  mkdirSync(join(folder, 'guest'), { recursive: true, mode: 0o755 })
  image(guest.folder.base, join(folder, 'base.raw'))
  copyFileSync(guest.folder.disk, join(folder, 'guest/disk.qcow2'))
  copyFileSync(guest.folder.seed, join(folder, 'guest/seed.iso'))
}

/**
 * QEMU with the arguments of the guest, in a folder of its own, without the programs that contain
 * it. Nice 19 and in a session of its own as the guest is: both count when the machine is busy.
 */
function bareStart(guest: Guest, parent: string, { afterwards }: BenchContext): Contender {
  const folder = join(parent, 'bare')
  copyGuest(guest, folder, linkSync)
  let qemu: ChildProcess | undefined
  const end = async (): Promise<void> => {
    if (qemu === undefined || qemu.exitCode !== null || qemu.signalCode !== null) return
    const ended = once(qemu, 'exit')
    qemu.kill('SIGKILL')
    await ended
  }
  afterwards(end)
  return async () => {
    const spawnBare = async () => {
      const options = { cwd: folder, detached: true, stdio: 'ignore' } as const
      qemu = spawn('nice', ['-n', '19', ...guest.command], options)
    }
    const log = join(folder, 'guest/console.log')
    try {
      return await timeToFirstByte(log, spawnBare, firstByteTimeoutMs)
    } finally {
      await end()
    }
  }
}

async function libvirtStart(guest: Guest, { say, afterwards }: BenchContext): Promise<Contender> {
  say('starting a libvirt of its own')
  const folder = mkdtempSync(join(tmpdir(), 'mb-'))
  afterwards(() => rm(folder, { recursive: true, force: true }))
  // The user that libvirt's guests run as has to get to their files.
  chmodSync(folder, 0o711)
  const files = join(folder, 'guest')
  copyGuest(guest, files, copyFileSync)
  const consoleLog = join(files, 'guest/console.log')
  const libvirt = await startLibvirt(folder)
  afterwards(() => libvirt.stop())
  await libvirt.define({
    ...{ name, memoryMebibytes, consoleLog },
    disk: join(files, 'guest/disk.qcow2'),
    base: join(files, 'base.raw'),
    seed: join(files, 'guest/seed.iso'),
  })
  return async () => {
    try {
      return await timeToFirstByte(consoleLog, () => libvirt.start(name), firstByteTimeoutMs)
    } finally {
      await libvirt.destroy(name)
    }
  }
}
