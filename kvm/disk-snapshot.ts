import { type Clock, sleep } from '../base/clock.ts'
import { failure, messageOf } from '../base/errors.ts'
import type { Limits } from '../base/limits.ts'
import type { Log } from '../base/log.ts'
import { blockNodes } from './block-graph.ts'
import { openFrozen } from './freeze.ts'
import type { Guest } from './guest.ts'
import type { GuestAgent } from './guest-agent.ts'
import { type GuestFolder, guestFiles } from './guest-folder.ts'
import type { UserIdentity } from './guest-user.ts'
import { createSnapshotFile, type DiskToolComponents } from './overlay.ts'
import type { QmpReturns } from './qmp/commands.ts'

/** Whose disk is copied. */
export interface SnapshotInit {
  folder: GuestFolder
  owner: UserIdentity | undefined
  guest: Guest
  /** Freezes the guest's file systems meanwhile; undefined when none answers. */
  agent: GuestAgent | undefined
  onProgress(doneBytes: number, totalBytes: number): void
  /** Called when the guest could not be thawed: somebody has to go on trying. */
  onStillFrozen(): void
  signal: AbortSignal
}

/** What copying a disk needs. */
export interface SnapshotComponents extends DiskToolComponents {
  clock: Clock
  log: Log
  limits: Limits
}

/** How good a copy is. */
export interface Snapshot {
  /** Why its file systems are as after a loss of power; undefined when they held still. */
  unfrozen?: string
}

type Job = QmpReturns<'query-jobs'>[number]

const names = {
  job: 'snapshot',
  file: 'snapshot-file',
  disk: 'snapshot',
  filter: 'snapshot-filter',
}
const pollMs = { first: 5, most: 200 }

/**
 * Copies what a guest wrote (its overlay, not the image behind it) into `folder.snapshot` while
 * the guest goes on, as it was at one moment. What it trimmed or zeroed is kept as zero clusters.
 *
 * QEMU's mirror follows the guest's writes until both are the same, then is ended: the copy is the
 * disk at that moment, while the file systems are frozen. Against `blockdev-backup`, which keeps
 * the moment of its begin, it copies 4 KiB where that copies 64 (2,560 scattered writes: 11 MB for
 * 157 MB, in a fifth of the time), and no error of the copy ever reaches the guest's own writes.
 * @throws snapshotFailed, timeout, guestUnreachable, qemuRefused, the signal's reason; the guest
 * goes on, and nothing is left, in each case
 */
export async function takeSnapshot(
  init: SnapshotInit,
  components: SnapshotComponents,
): Promise<Snapshot> {
  const { guest, folder, owner, signal } = init
  await clearSnapshot(guest)
  await createSnapshotFile({ folder, owner, sizeBytes: await diskBytes(guest) }, components)
  signal.throwIfAborted()
  try {
    return await mirror(init, components)
  } finally {
    await clearSnapshot(guest).catch(error => {
      // QEMU has gone, or the next attempt clears it.
      components.log.warn({ error: messageOf(error) }, 'what copied a disk was not cleared')
    })
  }
}

/**
 * Takes away what copies a guest's disk, if anything does: the job, then its nodes.
 * @throws guestUnreachable, timeout; qemuRefused when QEMU does not let them go
 */
export async function clearSnapshot(guest: Guest): Promise<void> {
  const job = async () => (await guest.query('query-jobs')).find(({ id }) => id === names.job)
  for (let tries = 0; tries < clearTries; tries++) {
    const found = await job()
    if (found === undefined) break
    const end =
      found.status === 'concluded'
        ? guest.changeBlocks('job-dismiss', { id: names.job })
        : guest.changeBlocks('block-job-cancel', { device: names.job, force: true })
    // It may have gone on by itself in between: the next look tells.
    await end.catch(() => {})
  }
  const nodes = await guest.query('query-named-block-nodes', { flat: true })
  for (const name of [names.disk, names.file]) {
    if (!nodes.some(node => node['node-name'] === name)) continue
    await guest.changeBlocks('blockdev-del', { 'node-name': name })
  }
}

/** A job that is told to end does so when its requests under way are done. */
const clearTries = 1000

async function mirror(init: SnapshotInit, components: SnapshotComponents): Promise<Snapshot> {
  const { guest, agent, onProgress } = init
  const { clock, limits } = components
  const deadlineMs = clock.monotonicMs() + limits.snapshotMs
  const until = async (wanted: Job['status'], whileMs: number, signal?: AbortSignal) => {
    for (let waitMs = pollMs.first; ; waitMs = Math.min(2 * waitMs, pollMs.most)) {
      const job = await jobOf(guest)
      onProgress(job['current-progress'], job['total-progress'])
      if (job.status === 'concluded' && job.error !== undefined) throw failed(job.error)
      if (job.status === wanted) return true
      if (job.status === 'concluded') throw failed('it was ended')
      if (clock.monotonicMs() > whileMs) return false
      await sleep(clock, waitMs, signal)
    }
  }
  await begin(guest)
  const late = { what: 'the copy of the disk', timeoutMs: limits.snapshotMs }
  if (!(await until('ready', deadlineMs, init.signal))) throw failure('timeout', late)
  const frozen = await openFrozen(agent, components)
  try {
    init.signal.throwIfAborted()
    // Without force it ends when both are the same: what makes the copy one moment.
    await guest.changeBlocks('block-job-cancel', { device: names.job })
    const thawMs = clock.monotonicMs() + limits.freezeMs
    if (!(await until('concluded', thawMs))) {
      await frozen.thaw()
      if (!(await until('concluded', deadlineMs, init.signal))) throw failure('timeout', late)
    }
    const unfrozen = await frozen.problem()
    return unfrozen === undefined ? {} : { unfrozen }
  } finally {
    if (!(await frozen.thaw())) init.onStillFrozen()
  }
}

async function begin(guest: Guest): Promise<void> {
  await guest.changeBlocks('blockdev-add', {
    driver: 'file',
    'node-name': names.file,
    filename: guestFiles.snapshot,
    discard: 'unmap',
  })
  await guest.changeBlocks('blockdev-add', {
    driver: 'qcow2',
    'node-name': names.disk,
    file: names.file,
    // Nothing is behind it, so nothing is copied that the image has.
    backing: null,
    discard: 'unmap',
  })
  await guest.changeBlocks('blockdev-mirror', {
    'job-id': names.job,
    device: blockNodes.disk,
    target: names.disk,
    sync: 'top',
    granularity: 4096,
    'copy-mode': 'background',
    'filter-node-name': names.filter,
    'auto-dismiss': false,
  })
}

async function jobOf(guest: Guest): Promise<Job> {
  const jobs = await guest.query('query-jobs')
  const job = jobs.find(({ id }) => id === names.job)
  if (job === undefined) throw failed('QEMU knows nothing of it any more')
  return job
}

async function diskBytes(guest: Guest): Promise<number> {
  const nodes = await guest.query('query-named-block-nodes', { flat: true })
  const disk = nodes.find(node => node['node-name'] === blockNodes.disk)
  if (disk === undefined) throw failed('the guest has no disk')
  return disk.image['virtual-size']
}

function failed(detail: string) {
  return failure('snapshotFailed', { detail })
}
