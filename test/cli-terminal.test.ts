import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type IPty, spawn } from 'node-pty'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { virtualMachineKind } from '../resources/virtual-machine.ts'
import { startTestApi, type TestApi } from './support/api.ts'
import { createTestCommandLine, launcher, type TestCommandLine } from './support/command-line.ts'

let api: TestApi
let cli: TestCommandLine
/** Sizes that a command in the guest was told. */
const sizes: string[] = []
let uploadGate = Promise.withResolvers<void>()

beforeAll(async () => {
  api = await startTestApi({
    subresources: {
      prepareCommand: async () => async session => {
        session.onResize(({ columns, rows }) => sizes.push(`${columns}x${rows}`))
        await session.send('stdout', Buffer.from('$ '))
        for await (const bytes of session.input) {
          if (String(bytes).includes('q')) return { exitCode: 5 }
          await session.send('stdout', Buffer.from(`got ${JSON.stringify(String(bytes))}\r\n`))
        }
        return { exitCode: 0 }
      },
      async receiveImagePart(image, _, bytes) {
        for await (const _ of bytes);
        await uploadGate.promise
        return { ...image, status: { phase: 'Ready' } }
      },
    },
  })
  cli = createTestCommandLine(api.socketPath)
  await api.objects.create(virtualMachineKind, {
    apiVersion: 'macfleet.dev/v1',
    kind: 'VirtualMachine',
    metadata: { name: 'web', namespace: 'default' },
    spec: {
      image: 'micro',
      cpu: 1,
      memory: '1Gi',
      powerState: 'Running',
      restartPolicy: 'OnFailure',
      onHostLoss: 'Wait',
      machine: 'linux',
      priority: 0,
      terminationGracePeriodSeconds: 30,
    },
    status: { phase: 'Running' },
  })
})
afterAll(async () => {
  cli?.remove()
  await api?.close()
})

interface Session {
  terminal: IPty
  /** Everything that was written so far. */
  text(): string
  /** Waits until the text contains something. */
  until(wanted: string | RegExp): Promise<void>
  ended: Promise<number>
}

/** Runs `macfleet` on a terminal of 80 columns. */
function open(args: string[], environment: Record<string, string> = {}): Session {
  const env = { ...cli.environment, ...environment }
  const terminal = spawn(launcher, args, { name: 'xterm-256color', cols: 80, rows: 24, env })
  let text = ''
  const waiting = new Set<() => void>()
  const ended = new Promise<number>(resolve => terminal.onExit(({ exitCode }) => resolve(exitCode)))
  terminal.onData(data => {
    text += data
    for (const look of waiting) look()
  })
  const until = (wanted: string | RegExp) =>
    new Promise<void>((resolve, reject) => {
      const look = () => {
        if (!(typeof wanted === 'string' ? text.includes(wanted) : wanted.test(text))) return
        waiting.delete(look)
        resolve()
      }
      waiting.add(look)
      ended.then(code => reject(new Error(`ended with ${code}: ${JSON.stringify(text)}`)))
      look()
    })
  return { terminal, text: () => text, until, ended }
}

const escapeCharacter = '\u001b'

describe('on a terminal', () => {
  test('states have colours, unless NO_COLOR says no', async () => {
    const coloured = open(['get', 'vms'])
    expect(await coloured.ended).toBe(0)
    expect(coloured.text()).toContain(`${escapeCharacter}[1mNAME`)
    expect(coloured.text()).toMatch(/\[3\dm(Pending|Running)/)
    const plain = open(['get', 'vms'], { NO_COLOR: '1' })
    expect(await plain.ended).toBe(0)
    expect(plain.text()).not.toContain(escapeCharacter)
  })

  test('a console hands over each key, Ctrl-C too, and Ctrl-] leaves it', async () => {
    const session = open(['console', 'web'])
    await session.until('Leave it with Ctrl-].')
    session.terminal.write('abc')
    await session.until('abc')
    // The guest's, not ours: the echo of the test's console is all that comes back.
    session.terminal.write('\u0003')
    await session.until('\u0003')
    session.terminal.write('\u001d')
    expect(await session.ended).toBe(0)
    expect(session.text()).toContain('Left the console of web; it goes on.')
  })

  test('exec -it has the size of the terminal, every key, and the exit code', async () => {
    const session = open(['exec', 'web', '-it', '--', 'sh'])
    await session.until('$ ')
    session.terminal.write('\u0003')
    await session.until('got "\\u0003"')
    expect(sizes).toContain('80x24')
    session.terminal.resize(100, 30)
    session.terminal.write('x')
    await session.until('got "x"')
    await expect.poll(() => sizes).toContain('100x30')
    session.terminal.write('q')
    expect(await session.ended).toBe(5)
  })

  test('an import shows a bar while it sends, and takes it away', async () => {
    uploadGate = Promise.withResolvers()
    const disk = join(cli.folder, 'disk.raw')
    writeFileSync(disk, Buffer.alloc(4 * 2 ** 20))
    const session = open(['image', 'import', disk, '--name', 'disk'])
    await session.until(/Sending {2}\[[ █▏▎▍▌▋▊▉]{24}\] +\d+ % {2}\S+\/4Mi/)
    uploadGate.resolve()
    expect(await session.ended).toBe(0)
    expect(session.text()).toContain(`\r${escapeCharacter}[Kimage.macfleet.dev/disk imported`)
  })

  test('Ctrl-C ends a watch with 130', async () => {
    const session = open(['get', 'vms', '-w'])
    await session.until('web')
    session.terminal.write('\u0003')
    expect(await session.ended).toBe(130)
  })

  test('waiting is a line that is drawn anew, and goes', async () => {
    const session = open(['stop', 'web', '--wait', '--timeout', '1s'])
    await session.until(/web: Pending · 0\.\ds/)
    expect(await session.ended).toBe(3)
    expect(session.text()).toMatch(/\r\S*\[Kerror: vm web is not Stopped after 1 s/)
  })
})
