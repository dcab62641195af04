import { expect, test } from 'vitest'
import { isFailure } from '../base/errors.ts'
import { decodeConfig } from './decode-config.ts'
import { encodeConfig } from './encode-config.ts'
import type { ImageConfig } from './image-record.ts'

const digest = `sha256:${'0'.repeat(64)}`
const config: ImageConfig = {
  ...{ version: 1, arch: 'aarch64', machine: 'macos', firmware: 'uefi', virtualSizeBytes: 8192 },
  layers: [{ digest, dataBytes: 4096, chunkCount: 1, extentCount: 1 }],
  boot: { kernelDigest: digest, commandLine: 'quiet' },
  nvramDigest: digest,
  defaults: { cpu: 2 },
}

const detailOf = (text: string): string => {
  try {
    decodeConfig(Buffer.from(text, 'latin1'))
    return 'accepted'
  } catch (error) {
    if (isFailure(error, 'imageConfigInvalid')) return error.message
    throw error
  }
}

test('a config is read back, and says in words of OCI what it is made for', () => {
  const text = encodeConfig(config)
  expect(decodeConfig(Buffer.from(text))).toEqual(config)
  expect(JSON.parse(text)).toMatchObject({ architecture: 'arm64', os: 'darwin' })
})

test('whatever is not the one spelling of a config is refused', () => {
  const text = encodeConfig(config)
  expect(detailOf(text)).toBe('accepted')
  expect(detailOf(` ${text}`)).toContain('spelled in another way')
  expect(detailOf(text.replace('"arm64"', '"amd64"'))).toContain('spelled in another way')
  expect(detailOf(text.replace('"os":"darwin",', ''))).toContain('spelled in another way')
  expect(detailOf(text.replace('"version":1', '"version":1,"version":1'))).toContain('spelled')
  expect(detailOf(text.replace('"version":1', '"version":2'))).toContain('/version')
  expect(detailOf(text.replace('8192', '8193'))).toContain('whole blocks')
  expect(detailOf(text.replace('"firmware"', '"extra":1,"firmware"'))).toContain('/extra')
  for (const other of ['', '[]', 'null', '7', '{}', '\xff', '{"layers":[]}']) {
    expect(detailOf(other)).not.toBe('accepted')
  }
})
