import { mkdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { failure } from '../base/errors.ts'
import { imageKind } from '../resources/image.ts'
import type { VirtualMachine } from '../resources/virtual-machine.ts'
import { virtualMachineKind } from '../resources/virtual-machine.ts'
import { startTestApi, type TestApi } from './support/api.ts'
import { createTestCommandLine, launcher, type TestCommandLine } from './support/command-line.ts'

/** What was uploaded: which part of which image, and its bytes. */
const uploads: { name: string; part: string; format: string; text: string }[] = []

let api: TestApi
let cli: TestCommandLine
beforeAll(async () => {
  api = await startTestApi({
    subresources: {
      async receiveImagePart(image, part, bytes, { format }) {
        const chunks: Buffer[] = []
        for await (const chunk of bytes) chunks.push(chunk)
        const text = Buffer.concat(chunks).toString()
        uploads.push({ name: image.metadata.name, part, format, text })
        if (text === 'bad') throw failure('badRequest', { detail: 'this is no disk' })
        return { ...image, status: { phase: 'Ready', digest: 'sha256:abc' } }
      },
      verifyImage: async (_, { repair }) => ({
        checkedChunks: 3,
        bad: [{ file: 'disk', offset: 0, ...(repair && { isRepaired: true }) }],
      }),
      listLibrary: async () => ({
        entries: [{ name: 'team/base:1', kind: 'image', sizeBytes: 3, architectures: ['amd64'] }],
        isWhole: false,
      }),
      checkLibrary: async name => ({
        ...{ checkedBytes: 3, blobs: 1 },
        wrong: name === 'torn' ? [{ blob: 'sha256:1', detail: 'it is missing' }] : [],
      }),
    },
  })
  cli = createTestCommandLine(api.socketPath)
  await api.objects.create(imageKind, {
    apiVersion: 'macfleet.dev/v1',
    kind: 'Image',
    metadata: { name: 'micro', namespace: 'default' },
    spec: { arch: 'x86_64', machine: 'linux', firmware: 'bios', pinned: false },
  })
})
afterAll(async () => {
  cli?.remove()
  await api?.close()
})

const macfleet = (...args: string[]) => cli.macfleet(...args)

/** Runs it, expects success, and returns what it printed. */
async function must(...args: string[]): Promise<string> {
  const result = await macfleet(...args)
  expect(result, args.join(' ')).toMatchObject({ code: 0 })
  return result.stdout
}

async function create(name: string, ...more: string[]): Promise<void> {
  const args = ['run', 'micro', '--name', name, '--no-ssh', ...more]
  expect(await cli.here(...args), name).toMatchObject({ code: 0 })
}

const machineOf = (name: string, namespace = 'default'): Promise<VirtualMachine> =>
  api.objects.get(virtualMachineKind, { name, namespace })

describe('run', () => {
  test('creates a machine as the options say, with a key of our own', async () => {
    const printed = await must('run', 'micro', '--name', 'r1', '--cpu', '2', '--port', '8080:80')
    expect(printed).toContain('virtualmachine.macfleet.dev/r1 created\n')
    expect(printed).toContain('macfleet ssh r1')
    const { spec } = await machineOf('r1')
    expect(spec).toMatchObject({ image: 'micro', cpu: '2', memory: '1Gi' })
    expect(spec.ports).toEqual([
      { guestPort: 22, protocol: 'TCP' },
      { guestPort: 80, hostPort: 8080, protocol: 'TCP' },
    ])
    const key = join(cli.folder, 'config/id_ed25519')
    expect(spec.sshKeys).toEqual([readFileSync(`${key}.pub`, 'utf8').trim()])
    expect(statSync(key).mode & 0o777).toBe(0o600)
  })

  test('makes up a name, and takes labels, keys and user data from files', async () => {
    const file = (name: string, text: string) => {
      writeFileSync(join(cli.folder, name), text)
      return join(cli.folder, name)
    }
    const key = file('mine.pub', 'ssh-ed25519 AAAAC3 me\n')
    const data = file('data.yaml', '#cloud-config\n')
    const keys = ['--ssh-key', key, '--ssh-key', key]
    await must('run', 'micro', '--label', 'a=b', ...keys, '--user-data', data, '--ttl', '1h')
    const { items } = await api.objects.list(virtualMachineKind, {
      namespace: 'default',
      limit: 99,
    })
    const made = items.find(item => item.metadata.name.startsWith('micro-'))
    expect(made?.metadata.labels).toEqual({ a: 'b' })
    expect(made?.spec).toMatchObject({ ttl: '1h', userData: '#cloud-config\n' })
    expect(made?.spec.sshKeys).toEqual(['ssh-ed25519 AAAAC3 me', 'ssh-ed25519 AAAAC3 me'])
  })

  test('refuses what can not be, before anything is made', async () => {
    const missing = await macfleet('run', 'nope')
    expect(missing).toMatchObject({ code: 4, stdout: '' })
    expect(missing.stderr).toContain('there is no image nope')
    const disk = join(cli.folder, 'disk.qcow2')
    writeFileSync(disk, '')
    const file = await macfleet('run', disk)
    expect(file.code).toBe(1)
    expect(file.stderr).toContain(`macfleet image import ${disk} --name disk`)
    expect(await macfleet('run', 'micro', '--name', 'r1')).toMatchObject({ code: 1 })
    expect((await macfleet('run', 'micro', '--memory', 'lots')).stderr).toContain('spec.memory')
    for (const wrong of [
      ['--port', 'x'],
      ['--bogus'],
      ['--firmware', 'efi'],
      ['--rm', '--no-ssh'],
    ]) {
      expect(await cli.here('run', 'micro', ...wrong), wrong[0]).toMatchObject({ code: 2 })
    }
  })
})

describe('get', () => {
  test('prints tables, lists and names', async () => {
    await create('g1', '--label', 'team=ios')
    const table = await must('get', 'vms', '-l', 'team=ios')
    expect(table).toMatch(/^NAME +PHASE +READY .*\ng1 +Pending +False .*\n$/)
    expect(await must('get', 'vm', 'g1', '-o', 'wide')).toContain('IMAGE')
    expect(await must('get', 'vm/g1', '-o', 'name')).toBe('virtualmachine.macfleet.dev/g1\n')
    expect(await must('get', 'vm', 'g1', '--no-headers')).toMatch(/^g1 /)
    const list = JSON.parse(await must('get', 'vms', '-o', 'json', '-l', 'team=ios'))
    expect(list).toMatchObject({ apiVersion: 'v1', kind: 'List' })
    expect(list.items[0]).toMatchObject({ kind: 'VirtualMachine', metadata: { name: 'g1' } })
    const one = JSON.parse(await must('get', 'vm', 'g1', '-o', 'json'))
    expect(one).toMatchObject({ kind: 'VirtualMachine', metadata: { name: 'g1' } })
    expect(await must('get', 'vm', 'g1', '-o', 'yaml')).toContain('\nspec:\n  image: micro\n')
    expect(await must('get', 'ns', '-A')).toMatch(/^NAME +STATUS/)
  })

  test('keeps to the namespace, before or after the command', async () => {
    await must('apply', '-f', manifest('ns1', [machineYaml('inside', 'a')]))
    expect(await must('get', 'vms', '-n', 'a', '-o', 'name')).toContain('/inside\n')
    expect(await must('-n', 'a', 'get', 'vms', '-o', 'name')).toContain('/inside\n')
    expect(await must('get', 'vms', '-A')).toMatch(/^NAMESPACE[\s\S]*\na +inside /)
    const empty = await macfleet('get', 'vms', '-n', 'ab')
    expect(empty).toMatchObject({ code: 0, stdout: '' })
    expect(empty.stderr).toBe('No virtualmachines in namespace ab.\n')
  })

  test('says what it did not find, and what it did not understand', async () => {
    const missing = await macfleet('get', 'vm', 'nobody')
    expect(missing).toMatchObject({ code: 4, stdout: '' })
    expect(missing.stderr).toMatch(/^error: virtualmachines.* "nobody" not found\n$/)
    for (const wrong of [['vmz'], ['vms', '-o', 'xml'], ['vm', 'g1', '-l', 'a=b'], []]) {
      expect(await cli.here('get', ...wrong), wrong.join(' ')).toMatchObject({ code: 2 })
    }
  })
})

describe('describe', () => {
  test('shows fields and that there are no events', async () => {
    await create('d1', '--label', 'team=ios')
    const text = await must('describe', 'vm', 'd1')
    expect(text).toMatch(/^Kind: +VirtualMachine\nName: +d1\n/)
    expect(text).toContain('\n  team:  ios\n')
    expect(text).toMatch(/\n {2}Power State: +Running\n/)
    expect(text).toContain('\nEvents: none\n')
  })
})

const machineYaml = (name: string, namespace = 'default', cpu = '1') =>
  `apiVersion: macfleet.dev/v1
kind: VirtualMachine
metadata: {name: ${name}, namespace: ${namespace}}
spec: {image: micro, cpu: ${cpu}, ttl: null}
`

function manifest(name: string, documents: readonly string[]): string {
  const path = join(cli.folder, `${name}.yaml`)
  writeFileSync(path, documents.join('---\n'))
  return path
}

describe('apply and delete', () => {
  test('create, leave alone and change, document by document', async () => {
    const path = manifest('ten', [machineYaml('a1'), machineYaml('a2')])
    expect(await must('apply', '-f', path)).toMatch(/a1 created\n.*a2 created\n$/)
    expect(await must('apply', '-f', path)).toMatch(/a1 unchanged\n.*a2 unchanged\n$/)
    manifest('ten', [machineYaml('a1', 'default', '2'), machineYaml('a2')])
    expect(await must('apply', '-f', path)).toMatch(/a1 configured\n.*a2 unchanged\n$/)
    expect((await machineOf('a1')).spec.cpu).toBe(2)
    const same = await cli.feed(await must('get', 'vm', 'a1', '-o', 'yaml'), 'apply', '-f', '-')
    expect(same).toMatchObject({ code: 0, stdout: 'virtualmachine.macfleet.dev/a1 unchanged\n' })
  })

  test('try every document, and tell at the end that some failed', async () => {
    const wrong = machineYaml('w1').replace('cpu: 1', 'cpuu: 1')
    const path = manifest('some', [wrong, machineYaml('w2')])
    const result = await macfleet('apply', '-f', path)
    expect(result).toMatchObject({ code: 1, stdout: 'virtualmachine.macfleet.dev/w2 created\n' })
    expect(result.stderr).toContain(`error: ${path}:1: VirtualMachine "w1" is invalid`)
    expect(result.stderr).toContain('did you mean cpu?')
    expect(result.stderr).toMatch(/error: 1 of 2 failed\n$/)
  })

  test('delete what a file, a name or a selector says', async () => {
    const path = manifest('gone', [machineYaml('x1'), machineYaml('x2')])
    await must('apply', '-f', path)
    expect(await must('delete', '-f', path, '--no-wait')).toMatch(/x2 is being.*\n.*x1 is being/)
    // A machine stays until its host has let it go; there is no host here.
    expect((await machineOf('x1')).metadata.deletionTimestamp).toBeDefined()
    const slow = await macfleet('delete', 'vm', 'x1', '--timeout', '1s')
    expect(slow).toMatchObject({ code: 3 })
    expect(slow.stderr).toContain('vm x1 is not deleted after 1 s')
    expect(await macfleet('delete', 'vm', 'nobody')).toMatchObject({ code: 4 })
    await must('delete', 'vm', 'nobody', '--ignore-not-found')
    for (const wrong of [['vms'], ['vm', 'a', '-l', 'x=y'], []]) {
      expect(await cli.here('delete', ...wrong), wrong.join(' ')).toMatchObject({ code: 2 })
    }
  })
})

describe('power', () => {
  test('commands change what the machine should be doing', async () => {
    await create('p1')
    for (const [verb, state] of [
      ['stop', 'Stopped'],
      ['start', 'Running'],
      ['suspend', 'Suspended'],
      ['resume', 'Running'],
    ] as const) {
      expect(await cli.here(verb, 'vm/p1')).toMatchObject({ code: 0 })
      expect((await machineOf('p1')).spec.powerState).toBe(state)
    }
    await must('restart', 'p1')
    const { annotations } = (await machineOf('p1')).metadata
    expect(annotations?.['macfleet.dev/restarted-at']).toMatch(/^20\d\d-/)
    const some = await macfleet('stop', 'nobody', 'p1')
    expect(some).toMatchObject({ code: 1, stdout: expect.stringContaining('p1 told to stop') })
    const wait = await macfleet('stop', 'p1', '--wait', '--timeout', '500ms')
    expect(wait).toMatchObject({ code: 3 })
  })
})

describe('exec, console and logs', () => {
  test('carry bytes and the exit code', async () => {
    await create('e1')
    const text = `${'x'.repeat(300_000)}\u0000\u00ff`
    const echoed = await cli.feed(text, 'exec', 'e1', '-i', '--', 'cat')
    expect(echoed).toEqual({ code: 0, stdout: text, stderr: '' })
    expect(await macfleet('exec', 'e1', '--', 'false')).toMatchObject({ code: 3, stderr: '' })
    const refused = await macfleet('exec', 'e1', '--', 'missing')
    expect(refused.code).toBe(1)
    expect(refused.stderr).toMatch(/^error: the guest agent does not answer/)
    expect(await macfleet('exec', 'nobody', '--', 'true')).toMatchObject({ code: 4 })
    expect(await must('logs', 'e1', '--tail', '2')).toBe('line 1\nline 2\n')
    expect(await macfleet('logs', 'e1', '--tail', 'x')).toMatchObject({ code: 2 })
  })

  test('a console is left by its escape key, from a pipe too', async () => {
    const left = await cli.feed('typed\u001d never sent', 'console', 'e1')
    expect(left.code).toBe(0)
    expect(left.stdout).not.toContain('never sent')
    expect(left.stderr).toContain('Left the console of e1')
  })
})

describe('image', () => {
  test('import sends kernel, initrd and content, and names the image by its file', async () => {
    const file = (name: string, text: string) => {
      writeFileSync(join(cli.folder, name), text)
      return join(cli.folder, name)
    }
    const [disk, kernel] = [file('Debian 12.raw', 'disk'), file('vmlinuz', 'kernel')]
    const boot = ['--kernel', kernel, '--initrd', file('initrd', 'ram'), '--command-line', 'quiet']
    const printed = await must('image', 'import', disk, '--format', 'raw', ...boot)
    expect(printed).toBe('image.macfleet.dev/debian-12 imported (sha256:abc)\n')
    expect(uploads.splice(0)).toEqual([
      { name: 'debian-12', part: 'kernel', format: 'auto', text: 'kernel' },
      { name: 'debian-12', part: 'initrd', format: 'auto', text: 'ram' },
      { name: 'debian-12', part: 'content', format: 'raw', text: 'disk' },
    ])
    const image = await api.objects.get(imageKind, { name: 'debian-12', namespace: 'default' })
    expect(image.spec.kernelCommandLine).toBe('quiet')
    const piped = await cli.feed('bytes', 'image', 'import', '-', '--name', 'piped')
    expect(piped.code).toBe(0)
    expect(uploads.splice(0)).toMatchObject([{ name: 'piped', text: 'bytes' }])
    expect(await must('image', 'list')).toContain('debian-12')
  })

  test('import takes back what it began when the content is refused', async () => {
    const disk = join(cli.folder, 'bad.raw')
    writeFileSync(disk, 'bad')
    const refused = await macfleet('image', 'import', disk)
    expect(refused.code).toBe(1)
    expect(refused.stderr).toContain('error: this is no disk')
    // Its finalizer waits for a host to let go; there is none here.
    const image = await api.objects.get(imageKind, { name: 'bad', namespace: 'default' })
    expect(image.metadata.deletionTimestamp).toBeDefined()
    const missing = await macfleet('image', 'import', join(cli.folder, 'none.raw'))
    expect(missing).toMatchObject({ code: 1 })
    expect(missing.stderr).toContain('can not be read')
    expect(await macfleet('image', 'import', '-')).toMatchObject({ code: 2 })
  })

  test('verify ends with 1 when something is wrong; prune says what it would remove', async () => {
    const verified = await macfleet('image', 'verify', 'micro', '-o', 'json')
    expect(verified.code).toBe(1)
    expect(JSON.parse(verified.stdout).checkedChunks).toBe(3)
    await must('image', 'verify', 'micro', '--repair')
    expect(await must('image', 'prune', '--older-than', '1h', '--dry-run')).toBe('')
  })

  test('the library is listed, and checked with 1 when something is wrong', async () => {
    const listed = await macfleet('image', 'library')
    expect(listed).toMatchObject({
      code: 0,
      stderr: expect.stringContaining('more than is listed'),
    })
    expect(listed.stdout).toMatch(/^NAME +KIND +SIZE +ARCH\nteam\/base:1 +image +3 +amd64\n$/i)
    expect(JSON.parse(await must('image', 'library', 'list', '-o', 'json')).isWhole).toBe(false)
    expect(await must('image', 'library', 'check', 'library:team/base:1')).toContain('wrong: []')
    expect(await macfleet('image', 'library', 'check', 'torn')).toMatchObject({ code: 1 })
  })
})

describe('the program', () => {
  test('explains itself, and what it does not know', async () => {
    const help = await must('--help')
    expect(help).toContain('Exit codes: 0 done, 1 failed, 2 wrong usage, 3 timed out, 4 not found')
    expect(await must('help', 'run')).toBe(await must('run', '--help'))
    const commands = [...help.matchAll(/^ {2}([a-z]+) {2,}/gm)].map(([, name]) => name ?? '')
    expect(commands.length).toBeGreaterThan(15)
    for (const name of commands) {
      const { stdout } = await cli.here(name, '--help')
      expect(stdout, name).toMatch(/\nExamples?:\n {2}/)
    }
    const unknown = await macfleet('gett')
    expect(unknown).toMatchObject({ code: 2, stderr: expect.stringContaining('Did you mean get?') })
    expect(await macfleet()).toMatchObject({ code: 2 })
  })

  test('tells versions, and how to start a daemon that is not there', async () => {
    expect(await must('version')).toMatch(/^client {2}\d+\.\d+\.\d+\nserver {2}0\.0\.0\n$/)
    const none = await macfleet('--socket', join(cli.folder, 'none.sock'), 'get', 'vms')
    expect(none.code).toBe(1)
    expect(none.stderr).toMatch(/^error: no daemon answers on .*systemctl start macfleetd.*\n$/)
  })

  test('goes where a context says', async () => {
    const own = createTestCommandLine(undefined)
    try {
      await own.macfleet('context', 'set', 'here', '--socket', api.socketPath, '--use', '-n', 'a')
      expect((await own.macfleet('context', 'list')).stdout).toMatch(/\n\* +here .* a\n$/)
      expect((await own.macfleet('get', 'vms', '-o', 'name')).stdout).toContain('/inside\n')
      expect(await own.macfleet('context', 'use', 'nope')).toMatchObject({ code: 4 })
      expect(await own.macfleet('context', 'delete', 'here')).toMatchObject({ code: 0 })
      expect((await own.macfleet('context', 'current')).stdout).toContain('/run/macfleet/')
    } finally {
      own.remove()
    }
  })

  test('completes commands, kinds, options and names', async () => {
    const complete = async (...words: string[]) =>
      (await cli.here('__complete', '--', ...words)).stdout.split('\n').filter(Boolean)
    expect(await complete('re')).toEqual(['restart', 'resume'])
    expect(await complete('image', 'in')).toEqual(['inspect'])
    expect(await complete('get', 'im')).toEqual(['images', 'img'])
    expect(await complete('get', 'vms', 'g')).toEqual(['g1'])
    expect(await complete('stop', 'g')).toEqual(['g1'])
    expect(await complete('run', 'mi')).toEqual(['micro'])
    expect(await complete('run', '--firmware', '')).toEqual(['bios', 'uefi'])
    expect(await complete('get', 'vms', '--sel')).toEqual(['--selector'])
    expect(await complete('exec', 'web', '--', '')).toEqual([])
  })

  test('says how to get what the host lacks, and ends with 1', async () => {
    const bin = join(cli.folder, 'bin')
    mkdirSync(bin)
    // All that the launcher itself needs.
    symlinkSync('/usr/bin/readlink', join(bin, 'readlink'))
    const { code, stdout, stderr } = await runAt(launcher, '/', ['doctor'], { PATH: bin })
    expect(code).toBe(1)
    expect(stdout).toMatch(/missing +qemu-system-x86_64 .*\n.*apt-get install .* qemu-system-x86\n/)
    expect(stderr).toMatch(/^error: \d+ things that guests need are missing/)
  })

  test('starts from any folder, through symlinks, and says what is missing', async () => {
    const link = join(cli.folder, 'mf')
    symlinkSync(launcher, link)
    const linked = await runAt(link, '/', ['version', '--client'])
    expect(linked).toMatchObject({ code: 0 })
    mkdirSync(join(cli.folder, 'tree/bin'), { recursive: true })
    const copy = join(cli.folder, 'tree/bin/macfleet')
    writeFileSync(copy, readFileSync(launcher), { mode: 0o755 })
    const bare = await runAt(copy, '/', ['version'])
    expect(bare.code).toBe(1)
    expect(bare.stderr).toContain('/tree/script/bootstrap')
  })
})

async function runAt(
  command: string,
  workingFolder: string,
  args: readonly string[],
  changes: NodeJS.ProcessEnv = {},
) {
  const { runCommand } = await import('../base/command.ts')
  const environment = { ...cli.environment, ...changes }
  const options = { timeoutMs: 20_000, workingFolder, environment, acceptedCodes: [0, 1] }
  return runCommand(command, args, options)
}
