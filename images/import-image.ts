import { createHash } from 'node:crypto'
import { chmod } from 'node:fs/promises'
import { join } from 'node:path'
import { timestamp } from '../base/clock.ts'
import { failure } from '../base/errors.ts'
import { type ByteSource, endWith, openSourceFile } from './byte-source.ts'
import { describeLayer } from './describe-layer.ts'
import { imageFiles } from './image-files.ts'
import { contentMode, type ImageFolder, sealImageFolder } from './image-folder.ts'
import type { ImageConfig } from './image-record.ts'
import { type DiskImportComponents, type ImportProgress, importDisk } from './import-disk.ts'
import type { StatedFormat } from './inspect-header.ts'
import { digestOf } from './layer-index.ts'
import { createAdmission, spoolStream } from './spool.ts'

/** A kernel that a machine starts directly, without firmware looking for one on the disk. */
export interface BootSources {
  kernel: ByteSource
  initrd?: ByteSource
  /** The kernel's command line; at most 2048 characters. */
  commandLine?: string
}

/** How an image is imported. */
export interface ImportOptions {
  /** `auto` goes by our own inspector; a stated raw file is never looked into. */
  format: StatedFormat
  boot?: BootSources
  /** Processor it is made for; x86_64 by default. */
  arch?: ImageConfig['arch']
  /** Firmware it boots with; bios by default. */
  firmware?: ImageConfig['firmware']
  /** Shape of the machine it is made for; linux by default. */
  machine?: ImageConfig['machine']
  onProgress?(progress: ImportProgress): void
  signal?: AbortSignal
}

/**
 * Builds an image in `folder`, which is there and empty: disk, boot files, index, config, all
 * durable.
 * @throws badRequest (boot options), imageRefused, imageSourceUnreadable, diskFull and what
 * importDisk does
 */
export async function buildImage(
  components: DiskImportComponents,
  folder: string,
  source: ByteSource,
  options: ImportOptions & { signal: AbortSignal },
): Promise<ImageFolder & { layers: Buffer[] }> {
  const onProgress = options.onProgress?.bind(options) ?? (() => {})
  checkCommandLine(options.boot?.commandLine)
  // The small files first: a missing kernel is told before a long copy, not after it.
  const boot = options.boot && (await takeBoot(components, folder, options.boot, options.signal))
  const { format, signal } = options
  const disk = await importDisk(components, folder, source, { format, onProgress, signal })
  const { arch = 'x86_64', machine = 'linux', firmware = 'bios' } = options
  const { virtualSizeBytes, layer } = describeLayer(disk.index, components.limits)
  const now = timestamp(components.clock)
  const sealed = await sealImageFolder(folder, {
    config: {
      ...{ version: 1, arch, machine, firmware, virtualSizeBytes },
      layers: [layer],
      ...(boot ? { boot } : {}),
    },
    state: { format: disk.format, importedAt: now, lastUsedAt: now, pinned: false, users: [] },
    layers: [disk.index],
  })
  return { ...sealed, layers: [disk.index] }
}

/** The longest command line that an x86 kernel takes (Linux, COMMAND_LINE_SIZE). */
const commandLineMax = 2048

function checkCommandLine(commandLine: string | undefined): void {
  if (commandLine === undefined) return
  if (commandLine.length > commandLineMax) {
    throw failure('badRequest', { detail: `a kernel takes ${commandLineMax} characters at most` })
  }
  if (/[^\x20-\x7e]/.test(commandLine)) {
    throw failure('badRequest', { detail: 'the command line of a kernel is plain ASCII, one line' })
  }
}

async function takeBoot(
  components: DiskImportComponents,
  folder: string,
  { kernel, initrd, commandLine }: BootSources,
  signal: AbortSignal,
): Promise<ImageConfig['boot']> {
  const take = (source: ByteSource, name: string) =>
    takeBootFile(components, source, join(folder, name), signal)
  const kernelDigest = await take(kernel, imageFiles.kernel)
  const initrdDigest = initrd && (await take(initrd, imageFiles.initrd))
  return {
    kernelDigest,
    ...(initrdDigest ? { initrdDigest } : {}),
    ...(commandLine ? { commandLine } : {}),
  }
}

async function takeBootFile(
  components: DiskImportComponents,
  source: ByteSource,
  path: string,
  signal: AbortSignal,
): Promise<string> {
  if ('path' in source) {
    const { handle, sizeBytes } = await openSourceFile(source.path)
    try {
      const stream = handle.createReadStream({ start: 0, autoClose: false })
      return await takeBootFile(components, { stream, sizeBytes }, path, signal)
    } finally {
      await handle.close()
    }
  }
  const { space, limits } = components
  const hash = createHash('sha256')
  await spoolStream(path, endWith(signal, source.stream), {
    admission: createAdmission(space, limits.bootFileBytes, source.sizeBytes),
    onProgress: () => {},
    onPart: part => hash.update(part),
    signal,
  })
  await chmod(path, contentMode)
  return digestOf(hash.digest())
}
