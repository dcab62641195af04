import { chmod, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { runCommand } from '../base/command.ts'
import { type GuestFolder, guestFolder, makeGuestFolder } from './guest-folder.ts'
import { createNvram } from './nvram.ts'
import { createOverlay } from './overlay.ts'
import { findQemu, findUefi } from './qemu.ts'
import { createSeed } from './seed.ts'

const components = { qemuImage: 'qemu-img', run: runCommand }
const owner = undefined
let root: string
let folder: GuestFolder

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'macfleet-disk-'))
  const roots = { dataRoot: join(root, 'data'), runRoot: join(root, 'run') }
  folder = guestFolder(roots, '0b1c2d3e-4f50-4617-8293-a4b5c6d7e8f9')
  await makeGuestFolder(folder, undefined)
})
afterEach(() => rm(root, { recursive: true }))

async function inspect(path: string): Promise<Record<string, unknown>> {
  const args = ['info', '-f', 'qcow2', '--output=json', path]
  return JSON.parse((await runCommand('qemu-img', args, { timeoutMs: 10_000 })).stdout)
}

describe('the overlay', () => {
  test('has small subclusters, the asked size, and names no backing file', async () => {
    await createOverlay({ folder, sizeBytes: 10_000_000, imageBytes: 0, owner }, components)
    const info = await inspect(folder.disk)
    expect(info).toMatchObject({ format: 'qcow2', 'virtual-size': 10_002_432 })
    expect(info).toMatchObject({ 'cluster-size': 131_072 })
    expect(info).toMatchObject({ 'format-specific': { data: { 'extended-l2': true } } })
    expect(info).not.toHaveProperty('backing-filename')
    expect((await stat(folder.disk)).mode & 0o777).toBe(0o600)
    expect(await readdir(folder.path)).toEqual(['guest'])
  })

  test('shows the image behind it, and never again what was discarded', async () => {
    const [base, imageBytes] = [join(root, 'base.raw'), 4 << 20]
    await writeFile(base, Buffer.alloc(imageBytes, 0xab))
    await createOverlay({ folder, sizeBytes: imageBytes, imageBytes, owner }, components)
    const nodes = {
      driver: 'qcow2',
      discard: 'unmap',
      file: { driver: 'file', filename: folder.disk, discard: 'unmap' },
      backing: { driver: 'raw', file: { driver: 'file', filename: base }, 'read-only': true },
    }
    const commands = [
      ...['read -P 0xab 0 4M', 'write -P 1 128k 256k', 'discard 128k 128k', 'read -P 0 128k 128k'],
      ...['read -P 1 256k 128k', 'write -z -u 1M 128k', 'read -P 0 1M 128k', 'write -z 2M 4k'],
      ...['read -P 0 2M 4k', 'read -P 0xab 2052k 4k', 'write -P 3 3M 4k', 'read -P 0xab 3076k 4k'],
    ]
    const args = commands.flatMap(command => ['-c', command])
    const said = await runCommand('qemu-io', [...args, `json:${JSON.stringify(nodes)}`], {
      timeoutMs: 10_000,
    })
    expect(said.stdout).not.toContain('failed')
    expect((await readFile(base)).equals(Buffer.alloc(imageBytes, 0xab))).toBe(true)
  })

  test('stays when it is there, and what an earlier try left is in nobody’s way', async () => {
    await writeFile(join(folder.path, 'disk.qcow2.tmp'), 'half')
    const init = { folder, sizeBytes: 1 << 20, imageBytes: 0, owner }
    await createOverlay(init, components)
    const { ino } = await stat(folder.disk)
    await createOverlay({ ...init, sizeBytes: 1 << 21 }, components)
    expect((await stat(folder.disk)).ino).toBe(ino)
  })

  test('is never smaller than its image', async () => {
    const init = { folder, sizeBytes: 100, imageBytes: 101, owner }
    await expect(createOverlay(init, components)).rejects.toThrow('too small for an image of 101')
    expect(await readdir(folder.guest)).toEqual([])
  })
})

describe('the UEFI variables', () => {
  test('are the template’s, as qcow2', async () => {
    const template = join(root, 'vars.fd')
    await writeFile(template, Buffer.alloc(540_672, 7))
    await createNvram({ folder, template, owner }, components)
    expect(await inspect(folder.nvram)).toMatchObject({ 'virtual-size': 540_672 })
    const args = ['convert', '-f', 'qcow2', '-O', 'raw', folder.nvram, join(root, 'out')]
    await runCommand('qemu-img', args, { timeoutMs: 10_000 })
    expect((await readFile(join(root, 'out'))).equals(await readFile(template))).toBe(true)
  })
})

describe('the seed disk', () => {
  const content = { instanceId: 'i-1', hostName: 'web', sshKeys: ['ssh-ed25519 AAAA me@desk'] }

  test('has the label cidata and the three files by their long names', async () => {
    await createSeed({ ...content, folder, owner, networkConfig: 'version: 2\n' }, runCommand)
    const list = await runCommand('isoinfo', ['-J', '-f', '-i', folder.seed], { timeoutMs: 10_000 })
    expect(list.stdout.trim().split('\n').sort()).toEqual([
      '/meta-data',
      '/network-config',
      '/user-data',
    ])
    expect((await readFile(folder.seed)).toString('latin1')).toContain('local-hostname: web')
    const label = await runCommand('blkid', ['-p', '-s', 'LABEL', '-o', 'value', folder.seed], {
      timeoutMs: 10_000,
    })
    expect(label.stdout.trim()).toBe('cidata')
    expect((await stat(folder.seed)).size).toBeGreaterThan(68 * 1024)
    expect((await stat(folder.seed)).mode & 0o777).toBe(0o600)
    expect((await readdir(folder.path)).sort()).toEqual(['guest', 'seed.sha256'])
  })

  test('is the same, byte for byte, for the same content', async () => {
    await createSeed({ ...content, folder, owner }, runCommand)
    const first = await readFile(folder.seed)
    // ISO 9660 dates have a grain of one second: let it pass.
    const second = Math.floor(Date.now() / 1000)
    await expect.poll(() => Math.floor(Date.now() / 1000), { timeout: 3000 }).not.toBe(second)
    await rm(folder.seedDigest)
    await createSeed({ ...content, folder, owner }, runCommand)
    expect((await readFile(folder.seed)).equals(first)).toBe(true)
  })

  test('is made anew when its content changes, and only then', async () => {
    await createSeed({ ...content, folder, owner }, runCommand)
    const { ino } = await stat(folder.seed)
    await createSeed({ ...content, folder, owner }, runCommand)
    expect((await stat(folder.seed)).ino).toBe(ino)
    await createSeed({ ...content, folder, owner, hostName: 'database' }, runCommand)
    expect((await readFile(folder.seed)).toString('latin1')).toContain('local-hostname: database')
  })
})

describe('QEMU', () => {
  test('is found, with its version', async () => {
    const found = await findQemu({ architecture: 'x86_64' }, runCommand)
    expect(found.version).toMatch(/^\d+\.\d+\.\d+$/)
  })

  test('is missed by name', async () => {
    const init = { architecture: 'x86_64' as const, system: join(root, 'qemu') }
    await expect(findQemu(init, runCommand)).rejects.toThrow('qemu is not on this host')
    await writeFile(init.system, '#!/bin/sh\necho QEMU emulator version 5.2.0\n')
    await chmod(init.system, 0o755)
    await expect(findQemu(init, runCommand)).rejects.toThrow('at least 6.2 is needed')
  })

  test('has UEFI firmware by its descriptors, never the one that needs SMM', async () => {
    const firmware = (code: string, features: string[]) =>
      JSON.stringify({
        'interface-types': ['uefi'],
        mapping: {
          device: 'flash',
          executable: { filename: code, format: 'raw' },
          'nvram-template': { filename: 'vars', format: 'raw' },
        },
        targets: [{ architecture: 'x86_64', machines: ['pc-q35-*'] }],
        features,
      })
    await writeFile(join(root, '10-broken.json'), '{')
    await writeFile(join(root, '20-secure.json'), firmware('secure', ['requires-smm']))
    await expect(findUefi('x86_64', root)).rejects.toThrow('the firmware UEFI is not on this host')
    await writeFile(join(root, '30-plain.json'), firmware('plain', []))
    expect(await findUefi('x86_64', root)).toEqual({ code: 'plain', variables: 'vars' })
    await expect(findUefi('aarch64', root)).rejects.toThrow('not on this host')
  })
})
