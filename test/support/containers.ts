import { createHash } from 'node:crypto'
import { type Header, pack } from 'tar-stream'
import type { ContainerImage } from '../../images/wrapped/container-image.ts'
import { digestOfBytes } from './images.ts'

/** An entry of an archive that a test makes. */
export type TestEntry = Partial<Omit<Header, 'size'>> & { name: string; bytes?: Buffer }

/** An archive with these entries, in order. */
export async function tarOf(...entries: TestEntry[]): Promise<Buffer> {
  const archive = pack()
  for (const { bytes, ...header } of entries) archive.entry(header, bytes ?? '')
  archive.finalize()
  const parts: Buffer[] = []
  for await (const part of archive) parts.push(part as Buffer)
  return Buffer.concat(parts)
}

/** A header block written by hand, with a right checksum, for what tar-stream would not write. */
export function headerOf(name: string, sizeBytes: number, flag = '0'): Buffer {
  const block = Buffer.alloc(512)
  block.write(name, 0)
  block.write('0000644\0', 100)
  block[124] = 0x80
  block.writeBigUInt64BE(BigInt(sizeBytes), 128)
  block.write(flag, 156)
  block.write('ustar\x0000', 257)
  block.fill(' ', 148, 156)
  block.write(
    `${block
      .reduce((sum, byte) => sum + byte)
      .toString(8)
      .padStart(6, '0')}\0`,
    148,
  )
  return block
}

/** Layers, base first: what is sent, what it unpacks to, and how they are named. */
export function containerOf(layers: { sent: Buffer; plain: Buffer | string }[]): {
  image: ContainerImage
  blobs: Map<string, Buffer>
} {
  const blobs = new Map<string, Buffer>()
  const image: ContainerImage = {
    arch: 'x86_64',
    layers: layers.map(({ sent, plain }) => {
      const digest = digestOfBytes(sent)
      blobs.set(digest, sent)
      const plainDigest = typeof plain === 'string' ? plain : digestOfBytes(plain)
      return { digest, sizeBytes: sent.length, plainDigest }
    }),
  }
  return { image, blobs }
}

/** The digest of so many zeros, made without holding them. */
export function digestOfZeros(sizeBytes: number): string {
  const hash = createHash('sha256')
  const zeros = Buffer.alloc(1024 * 1024)
  for (let at = 0; at < sizeBytes; at += zeros.length) hash.update(zeros)
  return `sha256:${hash.digest('hex')}`
}
