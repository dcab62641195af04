import { appendFileSync, readFileSync, statSync } from 'node:fs'
import { isIP } from 'node:net'
import { join } from 'node:path'
import { spawn as spawnTerminal } from 'node-pty'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { checkout } from '../../agent/dev/local-host.ts'
import { firewallName } from '../../agent/guest-firewall.ts'
import { runCommand } from '../../base/command.ts'
import { defaultLimits } from '../../base/limits.ts'
import { identify } from '../../base/process-identity.ts'
import { firewallStands, removeFirewall } from '../../kvm/firewall.ts'
import { createTestHost, isReady, qemuPids, type TestHost, until } from '../support/host.ts'

const micro = join(checkout, '.macfleet/guests/micro.raw')
const MiB = 2 ** 20

/** Clears the screen, retitles the window, asks the terminal for an answer, switches it about. */
const escapes = [
  String.raw`\033[2J\033]0;pwned\007\033[6n\033[?1049h\033P+q544e\033\\`,
  // The same in one character each, and what ends as a colour does.
  String.raw`\302\2332J\302\235pwned\302\234\033[>4;2m\233\216\000`,
].join('')

/** Answers nothing that was asked, without end. */
const garbage = `while :; do
  head -c 65536 /dev/urandom
  printf '\\377{"return":1}\\n{"return":[]}\\n{"error":{}}\\n'
done >$port`

/** Says that it is there, as an agent does, and lies in everything else. */
const liar = `while read -r line; do
  case $line in
    *sync*) id=\${line##*:}; printf '\\377{"return":%s}\\n' "\${id%%\\}*}" ;;
    *interfaces*) printf '{"return":[{"name":"\\\\u001b[2J","ip-addresses":[%s,%s,7]},null]}\\n' \\
      '{"ip-address":"\\u001b[2Jpwned","ip-address-type":"ipv4","prefix":-1}' \\
      '{"ip-address":{"a":1},"ip-address-type":7}' ;;
    *) printf '{"return":{"pid":"x","exited":7,"out-data":9}}\\n' ;;
  esac
done <>$port >&0`

function isControl(character: string): boolean {
  const code = character.codePointAt(0) ?? 0
  return (code < 0x20 && !'\t\r\n'.includes(character)) || (code >= 0x7f && code <= 0x9f)
}

function memoryBytes(pid: number, field: 'VmRSS' | 'VmHWM'): number {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8')
  return Number(new RegExp(`^${field}:\\s*(\\d+) kB$`, 'm').exec(status)?.[1]) * 1024
}

describe('a guest that means ill', { concurrent: false }, () => {
  let host: TestHost
  let uid: string
  let qemu: number[]
  let rssBytes: number
  beforeAll(async () => {
    host = await createTestHost()
    await host.must('image', 'import', micro, '--name', 'micro')
    await host.must('run', 'micro', '--name', 'ill', '--memory', '192Mi', '--wait')
    const machine = await host.untilMachine('ill', at => at.status?.address !== undefined)
    uid = machine.metadata.uid ?? ''
    qemu = qemuPids(host)
    rssBytes = memoryBytes(host.host.pid, 'VmRSS')
  })
  afterAll(() => host?.remove())

  const inGuest = (command: string) => host.macfleet('ssh', 'ill', '--', command)
  const consoleLog = () => join(host.host.dataDir, 'guests', uid, 'guest/console.log')
  const sizeOf = (path: string) => statSync(path, { throwIfNoEntry: false })?.size ?? 0
  /** The daemon is the same, is well and has not grown. */
  const expectUnimpressed = async () => {
    expect(identify(host.host.pid)).toBeDefined()
    expect(qemuPids(host)).toEqual(qemu)
    expect((await inGuest('echo here')).stdout).toBe('here\n')
    expect(memoryBytes(host.host.pid, 'VmHWM') - rssBytes).toBeLessThan(100 * MiB)
  }
  /** Puts another program behind the agent's port. */
  const replaceAgent = async (script: string) => {
    const port = 'port=/dev/$(basename /sys/class/virtio-ports/*)'
    const text = Buffer.from(`#!/bin/sh\n${port}\n${script}\n`).toString('base64')
    const install = [
      port,
      `echo ${text} | base64 -d >/run/new && chmod +x /run/new && mv /run/new /run/ill`,
      'mount -o bind /run/ill /etc/service/agent',
      // One process at a time may have the port open.
      'for file in /proc/[0-9]*/fd/*; do',
      '  if [ "$(readlink $file)" = $port ]; then',
      '    process=${file#/proc/}',
      '    kill -9 ${process%%/*}',
      '  fi',
      'done',
      'true',
    ]
    expect(await inGuest(install.join('\n'))).toMatchObject({ code: 0 })
  }

  test('does nothing to the terminal of who reads its console', async () => {
    await inGuest(`printf '${escapes}' >/dev/ttyS0; echo the-end >/dev/ttyS0`)
    await until('the log has it', () =>
      readFileSync(consoleLog(), 'latin1').includes('the-end') ? true : undefined,
    )
    expect(readFileSync(consoleLog(), 'latin1')).toContain('\u001b[2J')
    const terminal = spawnTerminal(
      join(checkout, 'bin/macfleet'),
      ['--socket', host.host.socket, 'logs', 'ill'],
      { env: { ...process.env, MACFLEET_CONFIG_DIR: join(host.folder, 'config') } },
    )
    let shown = ''
    terminal.onData(data => {
      shown += data
    })
    await new Promise(resolve => terminal.onExit(resolve))
    expect(shown).toContain('the-end')
    // Colours may stay, and nothing else that begins with ESC.
    const [text = '', ...sequences] = shown.split('\u001b')
    for (const sequence of sequences) expect(sequence).toMatch(/^\[[\d;:]*m/)
    expect(Array.from(text + sequences.join('')).filter(isControl)).toEqual([])
    expect(shown).not.toContain('pwned')
  })

  test('fills no disk with what it prints, and no memory of who follows it', async () => {
    const follower = host.macfleet('logs', '-f', 'ill')
    const console = host.macfleet('console', 'ill')
    const printing = inGuest('yes macfleet | head -c 1000000 >/dev/ttyS0')
    // As fast as a guest on KVM prints: under emulation these would take minutes.
    const line = Buffer.alloc(MiB, 'macfleet\n')
    let most = 0
    for (let written = 0; written < 64; written++) {
      appendFileSync(consoleLog(), line)
      most = Math.max(most, sizeOf(`${consoleLog()}.1`))
    }
    await printing
    const limit = defaultLimits.serialLogBytes
    await until('the log is short again', () => (sizeOf(consoleLog()) <= limit ? true : undefined))
    expect(Math.max(most, sizeOf(`${consoleLog()}.1`))).toBeLessThanOrEqual(5 * limit)
    expect((await host.must('logs', 'ill')).length).toBeLessThanOrEqual(2 * limit)
    await expectUnimpressed()
    void follower
    void console
  })

  test.each([
    { what: 'garbage', script: garbage },
    { what: 'lies', script: liar },
  ])('answers with $what for its agent, and harms nobody', async ({ script }) => {
    await replaceAgent(script)
    const { code, stdout } = await host.macfleet('exec', 'ill', '--', 'echo', 'here')
    // By SSH, when the daemon has seen through it; else refused. Never what the agent makes up.
    expect([
      [0, 'here\n'],
      [1, ''],
    ]).toContainEqual([code, stdout])
    await expectUnimpressed()
  })

  test('is taken over by a new daemon all the same', async () => {
    await host.kill()
    await host.start()
    const { status } = await host.untilMachine('ill', isReady)
    expect(isIP(status?.address ?? '0.0.0.0')).not.toBe(0)
    await expectUnimpressed()
  })

  test.runIf(process.getuid?.() === 0)('is shut in again when the rules were flushed', async () => {
    const name = firewallName(host.host.dataDir)
    expect(await firewallStands(name, runCommand)).toBe(true)
    await removeFirewall(name, runCommand)
    expect(await firewallStands(name, runCommand)).toBe(false)
    await until('the rules are back', async () =>
      (await firewallStands(name, runCommand)) ? true : undefined,
    )
  })

  test('ends when it is deleted', async () => {
    await host.must('delete', 'vm', 'ill')
    expect(qemuPids(host)).toEqual([])
  })
})
