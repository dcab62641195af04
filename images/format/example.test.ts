import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { encodeConfig } from '../encode-config.ts'
import { encodeLayerIndex } from '../layer-index.ts'
import { encodeLocations } from './locations.ts'
import { decodeFrame, digestBytes } from './packs.ts'

/** docs/IMAGE-FORMAT.md, without spaces and what stands beside bytes. */
const text = readFileSync(join(import.meta.dirname, '../../docs/IMAGE-FORMAT.md'), 'utf8')
const example = text.slice(text.indexOf('## An example'))
const documented = example.replace(/ {2,}[a-z0-9].*$/gm, '').replace(/\s/g, '')

test('the example of the documentation is what the code writes', () => {
  const plain = Buffer.concat([Buffer.alloc(8192, 'a'), Buffer.alloc(4096, 'b')])
  const virtualSizeBytes = 1024 * 1024
  const extents = [
    { offsetBytes: 0, lengthBytes: 8192 },
    { offsetBytes: 64 * 1024, lengthBytes: 4096 },
  ]
  const chunks = [{ digest: digestBytes(plain), extents }]
  const index = encodeLayerIndex({ virtualSizeBytes, chunks, zeros: [] })
  const frame = Buffer.from('28b52ffd60002f750000186161620200fc07bed8ff1e6001', 'hex')
  expect(decodeFrame(frame, plain.length).equals(plain)).toBe(true)
  const pack = { digest: digestBytes(frame), sizeBytes: frame.length }
  const locations = encodeLocations([{ pack, offsetBytes: 0, lengthBytes: frame.length }])
  const layer = { digest: digestBytes(index), dataBytes: 12_288, chunkCount: 1, extentCount: 2 }
  const config = encodeConfig({
    ...{ version: 1, arch: 'x86_64', machine: 'linux', firmware: 'bios', virtualSizeBytes },
    layers: [layer],
  })
  expect(documented).toContain(config)
  for (const bytes of [index, frame, locations]) {
    expect(documented).toContain(bytes.toString('hex'))
  }
  for (const bytes of [plain, index, locations, Buffer.from(config)]) {
    expect(documented).toContain(digestBytes(bytes))
  }
})
