import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { checkout } from '../../agent/dev/local-host.ts'
import { findCondition } from '../../resources/condition.ts'
import type { VirtualMachine } from '../../resources/virtual-machine.ts'
import { createTestHost, qemuPids, type TestHost } from '../support/host.ts'

let host: TestHost
beforeAll(async () => {
  host = await createTestHost()
})
afterAll(() => host?.remove())

const names = ['one', 'two', 'three']
const document = (name: string) =>
  [
    'apiVersion: macfleet.dev/v1',
    'kind: VirtualMachine',
    `metadata: { name: ${name} }`,
    'spec: { image: micro, memory: 128Mi, cpu: 100m, ports: [{ guestPort: 22 }] }',
  ].join('\n')
const isRunning = (machine: VirtualMachine) => machine.status?.phase === 'Running'
const waitsForImage = (machine: VirtualMachine) =>
  findCondition(machine.status?.conditions, 'Ready')?.reason === 'ImageUnknown'
const userOf = (pid: number) =>
  /^Uid:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]

test('guests that start at the same moment get users and ports of their own', async () => {
  const manifest = join(host.folder, 'together.yaml')
  writeFileSync(manifest, names.map(document).join('\n---\n'))
  await host.must('apply', '-f', manifest)
  // All wait for the image, and all are told of it at once.
  for (const name of names) await host.untilMachine(name, waitsForImage)
  const micro = join(checkout, '.macfleet/guests/micro.raw')
  await host.must('image', 'import', micro, '--name', 'micro')
  const machines: VirtualMachine[] = []
  for (const name of names) machines.push(await host.untilMachine(name, isRunning, 60_000))
  const pids = qemuPids(host)
  expect(pids).toHaveLength(names.length)
  if (process.getuid?.() === 0) expect(new Set(pids.map(userOf)).size).toBe(names.length)
  const ports = machines.map(machine => machine.status?.ports?.[0]?.hostPort)
  expect(new Set(ports).size).toBe(names.length)
  await host.must('delete', '-f', manifest)
  expect(qemuPids(host)).toEqual([])
}, 100_000)
