import { expect, it, onTestFinished } from 'vitest'
import { systemClock } from '../../base/clock.ts'
import { defaultLimits } from '../../base/limits.ts'
import { silentLog } from '../../base/log.ts'
import { attachGuest, type Guest, type GuestStatus } from '../../kvm/guest.ts'
import { connectQmp } from '../../kvm/qmp/client.ts'
import type { RunState } from '../../kvm/qmp/commands.ts'
import { type BareQemu, consoleArguments, startBareQemu } from '../support/bare-qemu.ts'
import { bootSectorArguments } from '../support/boot-sector.ts'
import { temporaryFolder } from '../support/temporary-folder.ts'

const components = { clock: systemClock, log: silentLog, limits: defaultLimits }

const bootSector = () => [...bootSectorArguments(temporaryFolder()), ...consoleArguments]

function attach(qemu: BareQemu): Guest {
  const guest = attachGuest({ folder: qemu }, components)
  onTestFinished(() => guest.close())
  return guest
}

const waitForState = (guest: Guest, runState: RunState): Promise<GuestStatus> =>
  guest.waitFor(status => status.connected && status.runState === runState, {
    what: runState,
    timeoutMs: 10_000,
  })

it('leads a guest through pause, resume, reset and quit', async () => {
  const qemu = await startBareQemu(bootSector())
  const guest = attach(qemu)
  const events: string[] = []
  guest.onEvent(event => events.push(event.event))

  expect((await waitForState(guest, 'running')).qemuVersion).toMatch(/^\d+\.\d+\.\d+$/)
  await guest.perform({ kind: 'pause' })
  expect(guest.status().runState).toBe('paused')
  await expect(guest.perform({ kind: 'powerdown' })).rejects.toThrow(
    'a guest that is paused takes no powerdown: it must be running or suspended',
  )
  await guest.perform({ kind: 'reset' })
  expect(guest.status().runState).toBe('prelaunch')
  await guest.perform({ kind: 'resume' })
  expect(guest.status().runState).toBe('running')
  await guest.perform({ kind: 'reset' })
  expect(guest.status().runState).toBe('running')
  expect(await guest.query('query-kvm')).toMatchObject({ enabled: false })

  await guest.perform({ kind: 'quit' })
  expect(await qemu.exited).toEqual({ code: 0, signal: null })
  expect(events.filter(name => name !== 'UNKNOWN')).toEqual([
    'STOP',
    'RESET',
    'RESUME',
    'RESET',
    'SHUTDOWN',
  ])
  expect(guest.status()).toMatchObject({ connected: false })
  await expect(guest.perform({ kind: 'pause' })).rejects.toMatchObject({ code: 'guestUnreachable' })
})

it('waits for a QEMU that is not there yet and reports one that dies', async () => {
  const folder = temporaryFolder()
  const nobody = attachGuest({ folder: { qmp: `${folder}/qmp.sock` } }, components)
  onTestFinished(() => nobody.close())
  const short = { what: 'QEMU', timeoutMs: 50 }
  await expect(nobody.waitFor(status => status.connected, short)).rejects.toMatchObject({
    code: 'timeout',
  })
  const qemu = await startBareQemu(['-machine', 'none', '-S'])
  const guest = attach(qemu)
  await waitForState(guest, 'prelaunch')
  qemu.kill('SIGKILL')
  const dead = await guest.waitFor(status => !status.connected, { what: 'death', timeoutMs: 5000 })
  expect(dead.runState).toBe('prelaunch')
})

it('comes back when its place was taken, and sees what it missed', async () => {
  const qemu = await startBareQemu(['-machine', 'none', '-S'])
  const first = attach(qemu)
  await waitForState(first, 'prelaunch')
  await first.close()

  const other = await connectQmp({ socketPath: qemu.qmp }, components)
  const guest = attach(qemu)
  // A second client connects and hears nothing: the other one has the monitor.
  const taken = guest.waitFor(status => status.problem?.includes('no greeting') ?? false, {
    what: 'the other client to be noticed',
    timeoutMs: 10_000,
  })
  await taken
  await other.execute('cont')
  const watcher = await connectQmp({ socketPath: qemu.qmpWatch }, components)
  expect(await watcher.execute('query-status')).toMatchObject({ status: 'running' })
  watcher.close()
  other.close()
  await waitForState(guest, 'running')
})
