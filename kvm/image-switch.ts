import { failure } from '../base/errors.ts'
import { blockNodes, imageFileNodes, overlayNode } from './block-graph.ts'
import type { QmpClient } from './qmp/client.ts'

/** Reads that wait for an export which is away hold up QEMU for longer than other commands do. */
const timeoutMs = 40_000

/**
 * Puts the image's file behind a guest's disk in place of the export of that image. The guest reads
 * and writes meanwhile. It may be repeated after a crash at any point: what is done of it is seen
 * in the graph.
 * @throws guestBusy while a job works on the disk; qemuRefused, timeout, guestUnreachable
 */
export async function useImageFile(client: Pick<QmpClient, 'execute'>): Promise<void> {
  const nodes = await client.execute('query-named-block-nodes', { flat: true })
  const present = new Set(nodes.map(node => node['node-name']))
  if (!present.has(blockNodes.export)) return
  const [job] = await client.execute('query-block-jobs')
  if (job !== undefined) throw failure('guestBusy', { job: job.type })
  for (const node of imageFileNodes()) {
    if (!present.has(node['node-name'])) await client.execute('blockdev-add', node)
  }
  const options = [overlayNode(blockNodes.base)]
  await client.execute('blockdev-reopen', { options }, { timeoutMs })
  await client.execute('blockdev-del', { 'node-name': blockNodes.export }, { timeoutMs })
}
