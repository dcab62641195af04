import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { createServer as createPlainServer, type RequestListener } from 'node:http'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { defaultLimits } from '../../base/limits.ts'
import { silentLog } from '../../base/log.ts'
import { digestOfBytes, noise, openTestStore, storeFolders } from '../../test/support/images.ts'
import { hastyClock } from '../../test/support/lying-server.ts'
import { temporaryFolder } from '../../test/support/temporary-folder.ts'
import { readDiskUrl } from './disk-url.ts'
import { openRemoteDisk, type RemoteDiskInit } from './remote-disk.ts'

const MiB = 1024 * 1024
const disk = noise(4 * MiB)
const digest = digestOfBytes(disk)
async function serve(listener: RequestListener): Promise<{ origin: string; authorities: string }> {
  const folder = temporaryFolder()
  const [key, certificate] = [join(folder, 'key.pem'), join(folder, 'certificate.pem')]
  const fresh = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes']
  const names = ['-subj', '/CN=test', '-addext', 'subjectAltName=IP:127.0.0.1']
  const files = ['-keyout', key, '-out', certificate, '-days', '2']
  execFileSync('openssl', ['req', '-x509', ...fresh, ...files, ...names], { stdio: 'ignore' })
  const [cert, secret] = [readFileSync(certificate, 'utf8'), readFileSync(key)]
  const server = createServer({ cert, key: secret }, listener)
  return { origin: await listen(server, 'https'), authorities: cert }
}

async function listen(server: ReturnType<typeof createPlainServer>, scheme: string) {
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  onTestFinished(() => {
    server.closeAllConnections()
    server.close()
  })
  return `${scheme}://127.0.0.1:${(server.address() as AddressInfo).port}`
}

const open = (init: RemoteDiskInit, signal = new AbortController().signal) =>
  openRemoteDisk(
    { hosts: ['127.0.0.1'], ...init },
    { clock: hastyClock(200), log: silentLog, limits: defaultLimits },
    signal,
  )

async function read(init: RemoteDiskInit, signal?: AbortSignal): Promise<Buffer> {
  const { stream } = await open(init, signal)
  const parts: Uint8Array[] = []
  for await (const part of stream) parts.push(part)
  return Buffer.concat(parts)
}

const failed = (detail: RegExp | string) =>
  expect.objectContaining({ code: 'sourceFailed', message: expect.stringMatching(detail) })

interface Cutting {
  /** Bytes after which the connection is cut, answer by answer; then no more. */
  cuts: number[]
  headers?: (answers: number) => Record<string, string>
  /** Knows ranges. */
  ranges?: boolean
  /** From the second answer on. */
  other?: Buffer
}

/** Sends the disk and cuts the connection; notes what it was asked. */
function cutting({ cuts, headers, ranges = true, other = disk }: Cutting) {
  const asked: { range?: string; ifRange?: string }[] = []
  const listener: RequestListener = (request, response) => {
    const content = asked.length === 0 ? disk : other
    const { range } = request.headers
    const ifRange = request.headers['if-range'] as string | undefined
    asked.push({ ...(range && { range }), ...(ifRange && { ifRange }) })
    const said = headers?.(asked.length) ?? { etag: '"one"' }
    const isRest = ranges && range !== undefined && ifRange === said['etag']
    const from = isRest ? Number(/\d+/.exec(range)?.[0]) : 0
    response.writeHead(isRest ? 206 : 200, {
      ...said,
      'content-length': content.length - from,
      ...(isRest && { 'content-range': `bytes ${from}-${content.length - 1}/${content.length}` }),
    })
    const cut = cuts[asked.length - 1]
    if (cut === undefined) return void response.end(content.subarray(from))
    response.write(content.subarray(from, from + cut), () => response.destroy())
  }
  return { listener, asked }
}

test('a disk comes over HTTPS into the store, and its name says what it is', async () => {
  const store = await openTestStore(join(temporaryFolder(), 'images'))
  const { origin, authorities } = await serve((_, response) => response.end(disk))
  const found = await open({ url: `${origin}/a/disk.raw?key=secret`, authorities, digest })
  expect(found.format).toBe('auto')
  const { format } = await open({ url: `${origin}/disk.qcow2`, authorities })
  expect(format).toBe('qcow2')
  const record = await store.importImage(found, { format: found.format })
  expect(readFileSync(store.diskPath(record.digest)).equals(disk)).toBe(true)
})

test('what is cut is taken up where it was, as long as it is the same file', async () => {
  const cuts = [MiB, MiB / 2, MiB]
  const tagged = cutting({ cuts })
  const one = await serve(tagged.listener)
  expect((await read({ url: `${one.origin}/a.raw`, ...one })).equals(disk)).toBe(true)
  expect(tagged.asked).toHaveLength(4)
  expect(tagged.asked[1]).toMatchObject({ ifRange: '"one"', range: /^bytes=\d+-$/ })

  // A server without ranges sends it all again; without a tag a digest proves it.
  const simple = cutting({ cuts, ranges: false })
  const two = await serve(simple.listener)
  expect((await read({ url: `${two.origin}/a.raw`, ...two })).equals(disk)).toBe(true)
  const bare = cutting({ cuts, headers: () => ({}) })
  const three = await serve(bare.listener)
  expect((await read({ url: `${three.origin}/a.raw`, ...three, digest })).equals(disk)).toBe(true)
  const unnamed = await serve(cutting({ cuts, headers: () => ({}) }).listener)
  await expect(read({ url: `${unnamed.origin}/a.raw`, ...unnamed })).rejects.toEqual(
    failed('was cut, and nothing says'),
  )
})

test('a file that becomes another one in the middle is no image', async () => {
  const other = noise(4 * MiB, 9)
  const cuts = [MiB]
  const renamed = await serve(
    cutting({ cuts, other, headers: at => ({ etag: `"${at}"` }) }).listener,
  )
  await expect(read({ url: `${renamed.origin}/a.raw`, ...renamed })).rejects.toEqual(
    failed('is another one now'),
  )
  // The server lies: the digest says so, and nothing is kept.
  const lying = await serve(cutting({ cuts, other }).listener)
  const images = join(temporaryFolder(), 'images')
  const store = await openTestStore(images)
  const found = await open({ url: `${lying.origin}/a.raw#${digest.replace(':', '=')}`, ...lying })
  await expect(store.importImage(found, { format: 'raw' })).rejects.toMatchObject({
    code: 'contentDiffers',
  })
  expect(await storeFolders(images)).toMatchObject({ images: [], incoming: [] })
})

test('a server that fails, stalls, drips or never ends is given up', async () => {
  let asked = 0
  const busy = await serve((_, response) => {
    asked++
    if (asked > 2) return void response.end(disk)
    response.writeHead(asked === 1 ? 503 : 429, { 'retry-after': '1' }).end()
  })
  expect((await read({ url: `${busy.origin}/a.raw`, ...busy })).equals(disk)).toBe(true)
  const missing = await serve((_, response) => response.writeHead(404).end('secret words'))
  await expect(read({ url: `${missing.origin}/a.raw?key=secret`, ...missing })).rejects.toSatisfy(
    (error: Error) => /a\.raw: it answers 404/.test(error.message) && !/secret/.test(error.message),
  )
  const silent = await serve((_, response) => {
    response.writeHead(200, { etag: '"one"', 'content-length': disk.length })
    response.write(Buffer.alloc(100))
  })
  await expect(read({ url: `${silent.origin}/a.raw`, ...silent })).rejects.toEqual(failed('stalls'))
  const packed = await serve((_, response) => {
    response.writeHead(200, { 'content-encoding': 'gzip' }).end('x')
  })
  await expect(read({ url: `${packed.origin}/a.raw`, ...packed })).rejects.toEqual(failed('packs'))
  const huge = await serve((_, response) => {
    response.writeHead(200, { 'content-length': 2 ** 50 }).write('x')
  })
  await expect(read({ url: `${huge.origin}/a.raw`, ...huge })).rejects.toEqual(failed('limit'))
  const ended = new AbortController()
  const reading = read({ url: `${silent.origin}/a.raw`, ...silent }, ended.signal)
  ended.abort(new Error('enough'))
  await expect(reading).rejects.toThrow('enough')
})

test('redirects are followed a few times, to https only, and never inward', async () => {
  const target = { location: '' }
  const server = await serve((request, response) => {
    const hops = Number(/\d+/.exec(request.url ?? '')?.[0] ?? 0)
    if (request.url === '/away') response.writeHead(302, target).end()
    else if (hops === 0) response.end(disk)
    else response.writeHead(307, { location: `/hop${hops - 1}` }).end()
  })
  const { origin, authorities } = server
  expect((await read({ url: `${origin}/hop3`, authorities })).equals(disk)).toBe(true)
  await expect(read({ url: `${origin}/hop4`, authorities })).rejects.toEqual(failed('too many'))
  const away: [string, string][] = [
    ['http://127.0.0.1:1/a.raw', 'not https'],
    ['file:///etc/passwd', 'not https'],
    ['https://me:word@127.0.0.1/a.raw', 'credentials'],
    ['', 'nowhere'],
  ]
  for (const [location, detail] of away) {
    target.location = location
    await expect(read({ url: `${origin}/away`, authorities })).rejects.toEqual(failed(detail))
  }
  // Nobody but the operator can have this host ask itself.
  for (const url of [origin, origin.replace('127.0.0.1', 'localhost'), 'https://169.254.169.254']) {
    await expect(read({ url: `${url}/a.raw`, hosts: [], authorities })).rejects.toEqual(
      failed('inside'),
    )
  }
  await expect(read({ url: `${origin}/a.raw` })).rejects.toEqual(failed('not trusted'))
})

test('plain http is for what a digest proves', async () => {
  const server = createPlainServer((_, response) => response.end(disk))
  const origin = await listen(server, 'http')
  expect((await read({ url: `${origin}/a.raw`, digest })).equals(disk)).toBe(true)
  await expect(read({ url: `${origin}/a.raw` })).rejects.toMatchObject({ code: 'badRequest' })
  await expect(
    read({ url: `${origin}/a.raw`, digest: digestOfBytes(Buffer.alloc(1)) }),
  ).rejects.toMatchObject({ code: 'contentDiffers' })
})

test('a URL says what it has to, and nothing else', () => {
  const hex = digest.slice('sha256:'.length)
  const at = 'https://example.test/disk.qcow2'
  expect(readDiskUrl(`${at}?v=1#sha256=${hex}`)).toMatchObject({ digest })
  expect(readDiskUrl(`${at}#sha512=${hex}${hex}`)).toMatchObject({ digest: `sha512:${hex}${hex}` })
  expect(readDiskUrl(at, digest)).toMatchObject({ digest })
  expect(readDiskUrl(at).digest).toBeUndefined()
  const wrong: [string, string | undefined][] = [
    ['disk.qcow2', undefined],
    ['ftp://example.test/disk.raw', digest],
    ['http://example.test/disk.raw', undefined],
    ['https://me:word@example.test/disk.raw', digest],
    [`${at}#sha256=${hex.slice(1)}`, undefined],
    [`${at}#sha256=${hex}00`, undefined],
    [`${at}#md5=00`, undefined],
    [`${at}#sha256=${'0'.repeat(64)}`, digest],
  ]
  for (const [url, stated] of wrong) {
    expect(() => readDiskUrl(url, stated), url).toThrow(/URL of a disk/)
  }
})
