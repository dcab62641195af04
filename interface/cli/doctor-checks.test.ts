import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { checkHost, checkSocket, type Finding, type HostPlaces } from './doctor-checks.ts'

function bareHost(): HostPlaces & { folder: string } {
  const folder = mkdtempSync(join(tmpdir(), 'macfleet-doctor-'))
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }))
  const at = (name: string) => join(folder, name)
  mkdirSync(at('bin'))
  const firmware = [at('ovmf.fd')]
  return { folder, path: at('bin'), kvm: at('kvm'), cpuinfo: at('cpuinfo'), firmware, data: folder }
}

const of = (findings: Finding[], subject: string) =>
  findings.find(finding => finding.subject === subject)

test('a bare host lacks everything, and each line says how to get it', async () => {
  const findings = await checkHost(bareHost())
  expect(of(findings, 'qemu-system-x86_64')).toEqual({
    subject: 'qemu-system-x86_64',
    level: 'missing',
    detail: 'not there; it runs guests',
    remedy: 'sudo apt-get install --no-install-recommends qemu-system-x86',
  })
  expect(of(findings, 'ssh')).toMatchObject({ level: 'missing' })
  expect(of(findings, 'nft')).toMatchObject({ level: 'warning' })
  expect(of(findings, 'OVMF')?.remedy).toContain('ovmf')
  expect(of(findings, 'KVM')?.detail).toContain('emulated')
})

test('a program is found with its version, firmware and KVM where they are', async () => {
  const host = bareHost()
  const qemu = join(host.path, 'qemu-system-x86_64')
  writeFileSync(qemu, '#!/bin/sh\necho "QEMU emulator version 7.2.22 (Debian 1:7.2)"\n')
  chmodSync(qemu, 0o755)
  writeFileSync(host.firmware[0] ?? '', '')
  writeFileSync(host.kvm, '')
  writeFileSync(host.cpuinfo, 'flags\t\t: fpu vmx sse\n')
  const findings = await checkHost(host)
  expect(of(findings, 'qemu-system-x86_64')).toMatchObject({
    level: 'ok',
    detail: `${qemu}, 7.2.22`,
  })
  expect(of(findings, 'OVMF')?.level).toBe('ok')
  expect(of(findings, 'KVM')?.level).toBe('ok')
  writeFileSync(host.cpuinfo, 'flags\t\t: fpu sse\n')
  expect(of(await checkHost(host), 'KVM')?.detail).toContain('neither vmx nor svm')
})

test('a socket that is not there tells how to start the daemon', async () => {
  const found = await checkSocket(join(bareHost().folder, 'none.sock'), [])
  expect(found).toMatchObject({
    level: 'warning',
    remedy: expect.stringContaining('systemctl start'),
  })
})
