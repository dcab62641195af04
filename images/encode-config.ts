import { createHash } from 'node:crypto'
import type { ImageConfig } from './image-record.ts'
import { digestOf } from './layer-index.ts'

/**
 * Writes a config in its one spelling: fields in this order, no spaces. The first three say in the
 * words of OCI's image config, for programs that know no other, what the others say.
 */
export function encodeConfig(config: ImageConfig): string {
  const { version, arch, machine, firmware, virtualSizeBytes, boot, nvramDigest } = config
  const foreign = {
    architecture: arch === 'x86_64' ? 'amd64' : 'arm64',
    os: machine === 'macos' ? 'darwin' : 'linux',
    rootfs: { type: 'layers', diff_ids: [] },
  }
  const layers = config.layers.map(({ digest, dataBytes, chunkCount, extentCount }) => ({
    ...{ digest, dataBytes, chunkCount, extentCount },
  }))
  const start = boot && {
    kernelDigest: boot.kernelDigest,
    initrdDigest: boot.initrdDigest,
    commandLine: boot.commandLine,
  }
  const defaults = config.defaults && {
    cpu: config.defaults.cpu,
    memoryBytes: config.defaults.memoryBytes,
  }
  const head = { version, arch, machine, firmware, virtualSizeBytes, layers }
  return JSON.stringify({ ...foreign, ...head, boot: start, nvramDigest, defaults })
}

/** The digest of an image with this config. */
export function imageDigest(config: ImageConfig): string {
  return digestOf(createHash('sha256').update(encodeConfig(config)).digest())
}
