import { once } from 'node:events'
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { ensureGuardian } from '../../agent/guardian/launch.ts'
import type { ExitRecord } from '../../agent/guardian/protocol.ts'
import { systemClock } from '../../base/clock.ts'
import { defaultLimits } from '../../base/limits.ts'
import { silentLog } from '../../base/log.ts'
import { identify, signalProcess } from '../../base/process-identity.ts'
import {
  connectTo,
  endProcess,
  isGone,
  processesWith,
  script,
  startGuardian,
  type TestGuardian,
  until,
} from '../support/guardian.ts'
import { temporaryFolder } from '../support/temporary-folder.ts'

function exitRecord(guardian: TestGuardian, name: string): ExitRecord {
  return JSON.parse(readFileSync(join(guardian.folder, `${name}.exit.json`), 'utf8'))
}

test('says who it is, starts a process and tells how it ended', async () => {
  const guardian = startGuardian()
  const client = connectTo(guardian)
  const hello = await client.hello()
  expect(hello.version).toMatch(/^\d+\.\d+\.\d+/)
  expect(identify(hello.pid)?.startTicks).toBe(hello.startTicks)
  expect(hello.pid).toBe(guardian.process.pid)
  expect(statSync(guardian.socketPath).mode & 0o777).toBe(0o600)

  const identity = await client.start(
    script(guardian, 'one', 'echo bye >&2; exec sleep 0.2; exit 1'),
  )
  expect(identify(identity.pid)).toEqual(identity)
  const startedAt = expect.stringMatching(/^\d{4}-/)
  expect(await client.list()).toEqual([{ name: 'one', identity, startedAt }])
  await client.start(script(guardian, 'two', 'exit 7'))
  await until('both ends are told', () => client.exits.length === 2)
  expect(client.exits[0]).toMatchObject({ name: 'two', ended: { reason: 'exited', code: 7 } })
  expect(client.exits[1]).toMatchObject({
    ...{ event: 'exit', name: 'one', identity },
    ended: { reason: 'exited', code: 0, signal: null, stderrTail: 'bye\n' },
  })
  expect(exitRecord(guardian, 'one')).toEqual(client.exits[1]?.ended)
  expect(readFileSync(join(guardian.folder, 'one.stderr'), 'utf8')).toBe('bye\n')
})

test('keeps a name until its end was forgotten', async () => {
  const guardian = startGuardian()
  const client = connectTo(guardian)
  const sleeper = script(guardian, 'one', 'exec sleep 1000')
  const identity = await client.start(sleeper)
  await expect(client.start(sleeper)).rejects.toMatchObject({ code: 'guardianNameTaken' })
  await expect(client.forget('one')).rejects.toMatchObject({ code: 'guardianNameTaken' })
  expect(await client.signal('one', 'SIGTERM', identity)).toBe(true)
  await until('its end is told', () => client.exits.length === 1)
  expect(client.exits[0]?.ended).toMatchObject({ reason: 'exited', code: null, signal: 'SIGTERM' })
  await expect(client.start(sleeper)).rejects.toMatchObject({
    code: 'guardianNameTaken',
    message: expect.stringContaining('has ended'),
  })
  expect(await client.signal('one', 'SIGKILL', identity)).toBe(false)
  await client.forget('one')
  expect(await client.list()).toEqual([])
  await expect(client.forget('one')).rejects.toMatchObject({ code: 'guardianProcessNotFound' })

  const next = await client.start(sleeper)
  await expect(client.signal('one', 'SIGKILL', identity)).rejects.toMatchObject({
    code: 'guardianStaleIdentity',
  })
  expect(identify(next.pid)).toEqual(next)
})

test('names what it can not start, and leaves nothing of it', async () => {
  const guardian = startGuardian()
  const client = connectTo(guardian)
  const good = script(guardian, 'one', 'true')
  const wrong = [
    [{ command: 'no-such-program' }, 'commandMissing', 'no-such-program'],
    [{ command: guardian.folder }, 'guardianRefused', 'EACCES'],
    [{ workingFolder: '/no/such/folder' }, 'guardianRefused', '/no/such/folder'],
    [{ stderrPath: '/no/such/folder/file' }, 'guardianRefused', '/no/such/folder/file'],
    [{ name: '../one' }, 'guardianRefused', 'name'],
    [{ exitPath: 'relative' }, 'guardianRefused', 'exitPath'],
  ] as const
  for (const [change, code, message] of wrong) {
    await expect(client.start({ ...good, ...change })).rejects.toMatchObject({
      code,
      message: expect.stringContaining(message),
    })
  }
  expect(await client.list()).toEqual([])
  expect(readdirSync(join(guardian.dataFolder, 'guardian', 'processes'))).toEqual([])
  await client.start(good)
})

test('keeps what happened while its client was away', async () => {
  const guardian = startGuardian()
  const first = connectTo(guardian)
  const gate = join(guardian.folder, 'gate')
  await first.start(script(guardian, 'one', `until [ -e ${gate} ]; do sleep 0.02; done; exit 3`))
  first.close()
  writeFileSync(gate, '')
  await until('it has ended', () => existsSync(join(guardian.folder, 'one.exit.json')))
  const second = connectTo(guardian)
  expect(await second.list()).toMatchObject([{ name: 'one', ended: { code: 3 } }])
})

test('killed, takes its processes along, and the next one reports them', async () => {
  const guardian = startGuardian()
  const client = connectTo(guardian)
  const lost: number[] = []
  client.onLost(() => lost.push(1))
  const identity = await client.start(script(guardian, 'one', 'echo last >&2; exec sleep 1000'))
  await client.start(script(guardian, 'two', 'exit 5'))
  await until('one end is told', () => client.exits.length === 1)
  const words = join(guardian.folder, 'one.stderr')
  await until('its words are kept', () => readFileSync(words, 'utf8') === 'last\n')
  await endProcess(guardian.process)
  await until('its process is gone', () => isGone(identity.pid))
  await until('the client noticed', () => lost.length === 1)

  const connected = new Promise(resolve => client.onConnected(resolve))
  const next = startGuardian(guardian.folder)
  expect(await connected).toMatchObject({ pid: next.process.pid })
  const processes = await client.list()
  expect(processes).toMatchObject([
    {
      ...{ name: 'one', identity },
      ended: { reason: 'guardianLost', code: null, signal: null, stderrTail: 'last\n' },
    },
    { name: 'two', ended: { reason: 'exited', code: 5 } },
  ])
  expect(exitRecord(guardian, 'one').reason).toBe('guardianLost')
  await client.forget('one')
  await client.start(script(guardian, 'one', 'exec sleep 1000'))
})

test('kills what an earlier guardian left alive, before it answers', async () => {
  const guardian = startGuardian()
  const client = connectTo(guardian)
  // Without setpriv it does not die with its guardian, as one that was only just being started.
  const stray = { ...script(guardian, 'one', ''), command: 'sleep', arguments: ['1000'] }
  const known = await client.start(stray)
  const unknown = await client.start({ ...stray, name: 'two' })
  for (const identity of [known, unknown]) {
    onTestFinished(() => void signalProcess(identity, 'SIGKILL'))
  }
  await endProcess(guardian.process)
  const entryPath = join(guardian.dataFolder, 'guardian', 'processes', 'two.json')
  const { identity, ...entry } = JSON.parse(readFileSync(entryPath, 'utf8'))
  expect(identity).toEqual(unknown)
  writeFileSync(entryPath, JSON.stringify(entry))
  expect([known, unknown].map(({ pid }) => isGone(pid))).toEqual([false, false])

  const next = connectTo(startGuardian(guardian.folder))
  expect(await next.list()).toMatchObject([
    { name: 'one', ended: { reason: 'guardianLost' } },
    { name: 'two', ended: { reason: 'guardianLost' } },
  ])
  expect([known, unknown].map(({ pid }) => isGone(pid))).toEqual([true, true])
})

test('after a reboot or a power cut nothing of before is touched', async () => {
  const folder = temporaryFolder()
  const entries = join(folder, 'data', 'guardian', 'processes')
  mkdirSync(entries, { recursive: true })
  const entry = {
    ...{ name: 'one', bootId: 'another', startedAt: '', stderrPath: '', exitPath: '' },
    identity: identify(process.pid),
  }
  writeFileSync(join(entries, 'one.json'), JSON.stringify(entry))
  writeFileSync(join(entries, 'two.json'), '')
  const client = connectTo(startGuardian(folder))
  expect(await client.list()).toMatchObject([
    { name: 'one', ended: { reason: 'guardianLost' } },
    { name: 'two', ended: { reason: 'guardianLost' } },
  ])
  await client.forget('one')
  await client.forget('two')
  expect(readdirSync(entries)).toEqual([])
})

test('stops when nothing runs, by force also then, and leaves the record', async () => {
  const guardian = startGuardian()
  const client = connectTo(guardian)
  const identity = await client.start(script(guardian, 'one', 'exec sleep 1000'))
  await expect(client.stop(false)).rejects.toMatchObject({ code: 'guardianBusy' })
  const exited = once(guardian.process, 'exit')
  await client.stop(true)
  expect(isGone(identity.pid)).toBe(true)
  expect(client.exits[0]?.ended).toMatchObject({ reason: 'guardianStopped', signal: 'SIGKILL' })
  expect(await exited).toEqual([0, null])

  const next = connectTo(startGuardian(guardian.folder))
  expect(await next.list()).toMatchObject([{ name: 'one', ended: { reason: 'guardianStopped' } }])
  await next.stop(false)
})

test('bounds what a flooding process says, and keeps the end of it', async () => {
  const guardian = startGuardian()
  const client = connectTo(guardian)
  const gate = join(guardian.folder, 'gate')
  const flood = `until [ -e ${gate} ]; do printf %01000d 7; done >&2; echo the end >&2; exit 9`
  await client.start(script(guardian, 'flood', flood))
  const path = join(guardian.folder, 'flood.stderr')
  const limit = defaultLimits.lastWordsBytes
  await until('the file is full', () => statSync(path).size === limit)
  // It answers while it is being flooded.
  expect(await client.list()).toHaveLength(1)
  writeFileSync(gate, '')
  await until('its end is told', () => client.exits.length === 1)
  expect(statSync(path).size).toBe(limit)
  expect(readFileSync(path, 'utf8').endsWith('7the end\n')).toBe(true)
  const ended = client.exits[0]?.ended
  expect(ended?.code).toBe(9)
  expect(ended?.stderrTail.endsWith('the end\n')).toBe(true)
  expect(ended?.stderrTail.length).toBe(defaultLimits.lastWordsTailBytes)
})

test('rotates the log of a writer that appends, and keeps its lines', async () => {
  const guardian = startGuardian()
  const client = connectTo(guardian)
  const log = join(guardian.folder, 'console.log')
  const gate = join(guardian.folder, 'gate')
  // Each line once, about 100 kB a second, until there is a gate.
  const writer = `i=0; until [ -e ${gate} ]; do i=$((i+1)); printf '%09d\\n' $i
    [ $((i % 100)) = 0 ] && sleep 0.01; done >> ${log}`
  const seen = new Set<string>()
  const read = (path: string) => {
    if (existsSync(path)) for (const line of readFileSync(path, 'utf8').split('\n')) seen.add(line)
  }
  const logs = [{ path: log, limitBytes: 50_000 }]
  await client.start({ ...script(guardian, 'writer', writer), logs })
  const older = new Set<number>()
  await until('it was rotated twice', () => {
    if (existsSync(`${log}.1`)) older.add(statSync(`${log}.1`).mtimeMs)
    read(`${log}.1`)
    return older.size === 2
  })
  writeFileSync(gate, '')
  await until('the writer has ended', () => client.exits.length === 1)
  read(`${log}.1`)
  read(log)
  seen.delete('')
  expect(seen.size).toBeGreaterThan(2_000)
  // The copy window is microseconds; a line takes the writer about ten.
  expect(Math.max(...Array.from(seen, Number)) - seen.size).toBeLessThan(5)
  expect(readdirSync(guardian.folder).filter(name => name.startsWith('console'))).toEqual([
    'console.log',
    'console.log.1',
  ])
})

test('rotates nothing through a link, and no pipe stops it', async () => {
  const guardian = startGuardian()
  const client = connectTo(guardian)
  const at = (name: string) => join(guardian.folder, name)
  const secret = 'x'.repeat(4_000)
  for (const name of ['secret', 'plain.log', 'target.log']) writeFileSync(at(name), secret)
  writeFileSync(at('other'), 'something else')
  symlinkSync(at('secret'), at('symbolic.log'))
  symlinkSync(at('other'), at('target.log.1'))
  symlinkSync(at('other'), at('target.log.1.tmp'))
  const names = ['symbolic.log', 'pipe.log', 'missing.log', 'target.log', 'plain.log']
  const logs = names.map(name => ({ path: at(name), limitBytes: 1_024 }))
  const pipe = `mkfifo ${at('pipe.log')}; exec sleep 1000`
  await client.start({ ...script(guardian, 'one', pipe), logs })
  await until('the plain log is rotated', () => existsSync(at('plain.log.1')))
  expect(statSync(at('plain.log')).size).toBe(0)
  expect(readFileSync(at('target.log.1'), 'utf8')).toBe(secret)
  expect(statSync(at('target.log')).size).toBe(0)
  expect(readFileSync(at('secret'), 'utf8')).toBe(secret)
  expect(readFileSync(at('other'), 'utf8')).toBe('something else')
  expect(existsSync(at('symbolic.log.1'))).toBe(false)
})

test('is alone on its run folder and on its data folder', async () => {
  const guardian = startGuardian()
  const client = connectTo(guardian)
  const { pid } = await client.start(script(guardian, 'one', 'exec sleep 1000'))
  const other = startGuardian(guardian.folder)
  expect(await once(other.process, 'exit')).toEqual([75, null])
  const third = startGuardian(temporaryFolder(), { dataFolder: guardian.dataFolder })
  expect(await once(third.process, 'exit')).toEqual([75, null])
  const fourth = startGuardian(temporaryFolder(), { runFolder: guardian.runFolder })
  expect(await once(fourth.process, 'exit')).toEqual([75, null])
  expect((await client.hello()).pid).toBe(guardian.process.pid)
  expect(isGone(pid)).toBe(false)
})

test('cuts off a client that sends garbage, and no other', async () => {
  const guardian = startGuardian()
  const client = connectTo(guardian)
  await client.hello()
  const garbage = [
    'no json\n',
    '[]\n',
    '{"method":"list"}\n',
    '{"id":1,"method":5}\n',
    Buffer.alloc(defaultLimits.messageLineBytes + 10, 'x'),
  ]
  for (const bytes of garbage) {
    const socket = connect(guardian.socketPath)
    socket.on('error', () => {})
    socket.resume()
    socket.write(bytes)
    await once(socket, 'close')
  }
  const polite = connect(guardian.socketPath)
  polite.write('{"id":1,"method":"fly"}\n{"id":2,"method":"list"}\n')
  let answers = ''
  polite.on('data', text => {
    answers += text
  })
  await until('both are answered', () => answers.split('\n').length === 3)
  polite.destroy()
  const [first, second] = answers.split('\n').map(line => (line ? JSON.parse(line) : undefined))
  expect(first).toMatchObject({ id: 1, error: { code: 'guardianRefused' } })
  expect(second).toEqual({ id: 2, result: [] })
  expect((await client.hello()).pid).toBe(guardian.process.pid)
})

test('gives its children a standing and an environment of their own', async () => {
  const guardian = startGuardian()
  const client = connectTo(guardian)
  const say =
    'nice; cat /proc/self/oom_score_adj; env; ls -l /proc/self/fd | grep -c lock; nice -n 19 nice'
  await client.start({ ...script(guardian, 'one', say), environment: { COLOUR: 'blue' } })
  await client.start({
    ...script(guardian, 'two', 'cat /proc/self/oom_score_adj'),
    oomScoreAdjust: 300,
  })
  await until('both have ended', () => client.exits.length === 2)
  const lines = exitRecord(guardian, 'one').stderrTail.trim().split('\n')
  expect(lines.slice(0, 2)).toEqual(['0', '0'])
  expect(lines).toContain('COLOUR=blue')
  const names = lines.flatMap(line => (line.includes('=') ? [line.split('=')[0]] : []))
  expect(names.toSorted()).toEqual(['COLOUR', 'MACFLEET_GUARDED', 'PATH', 'PWD'])
  expect(lines.slice(-2)).toEqual(['0', '19'])
  expect(exitRecord(guardian, 'two').stderrTail).toBe('300\n')
  if (process.getuid?.() === 0) {
    const fields = readFileSync(`/proc/${guardian.process.pid}/stat`, 'utf8').split(') ')[1]
    expect(fields?.split(' ')[16]).toBe('-10')
  }
})

test('is started by whoever needs it, once, and outlives them', async () => {
  const folder = temporaryFolder()
  const options = { runFolder: join(folder, 'run'), dataFolder: join(folder, 'data') }
  const init = { options, managed: false, timeoutMs: 10_000, limits: defaultLimits }
  const components = { clock: systemClock, log: silentLog }
  await expect(
    ensureGuardian({ ...init, managed: true, timeoutMs: 100 }, components),
  ).rejects.toMatchObject({ code: 'guardianUnavailable' })
  const starters = [1, 2, 3].map(() => ensureGuardian(init, components))
  const [hello, ...others] = await Promise.all(starters)
  const client = connectTo({ socketPath: join(options.runFolder, 'guardian.sock') })
  onTestFinished(() => hello && void signalProcess(hello, 'SIGKILL'))
  expect(others).toEqual([hello, hello])
  expect(await ensureGuardian(init, components)).toEqual(hello)
  // A session of its own: no terminal's or service's end reaches it.
  const fields = readFileSync(`/proc/${hello?.pid}/stat`, 'utf8').split(') ')[1]?.split(' ')
  expect(Number(fields?.[3])).not.toBe(process.pid)
  await client.stop(false)
  // The other starters' guardians don't come to life when the one that won is stopped.
  const own = () => processesWith(options.dataFolder)
  await until('no guardian is left', () => own().length === 0)
  const log = readFileSync(join(options.runFolder, 'guardian.log'), 'utf8')
  expect(log.split('\n').filter(line => line.includes('the guardian is ready'))).toHaveLength(1)
})

test('that can not start says why', async () => {
  const folder = temporaryFolder()
  const options = { runFolder: join(folder, 'run'), dataFolder: join(folder, 'data') }
  writeFileSync(options.dataFolder, 'no folder')
  const init = { options, managed: false, timeoutMs: 10_000, limits: defaultLimits }
  await expect(ensureGuardian(init, { clock: systemClock, log: silentLog })).rejects.toMatchObject({
    code: 'guardianStartFailed',
    message: expect.stringMatching(/exit code 2.*data/s),
  })
})
