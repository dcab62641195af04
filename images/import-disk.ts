import { constants } from 'node:fs'
import { copyFile, type FileHandle, open, rm } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import type { Clock } from '../base/clock.ts'
import { isErrno } from '../base/files.ts'
import type { Limits } from '../base/limits.ts'
import {
  type ByteSource,
  endWith,
  isOursAlone,
  openSourceFile,
  peekStream,
  readHead,
  type SourceFile,
} from './byte-source.ts'
import { type ConvertComponents, checkQcow2, convertQcow2, mapData } from './convert.ts'
import type { DiskSpace } from './disk-space.ts'
import { imageFiles } from './image-files.ts'
import { contentMode } from './image-folder.ts'
import {
  inspectedBytes,
  inspectHeader,
  type RawFacts,
  refusalFailure,
  refuseFormat,
  type StatedFormat,
} from './inspect-header.ts'
import type { Qcow2Facts } from './inspect-qcow2.ts'
import { blockBytes } from './layer-index.ts'
import { recognisedBytes, recogniseFormat } from './recognise-format.ts'
import { refuse } from './refusal.ts'
import type { SandboxIdentity } from './sandbox.ts'
import { shortened } from './scan-messages.ts'
import { type ScanResult, scanFile, scanStream } from './scanner.ts'
import { createAdmission, spoolStream } from './spool.ts'
import { watchAllocation } from './watch-allocation.ts'

/** How far an import is. */
export interface ImportProgress {
  stage: 'receiving' | 'inspecting' | 'converting' | 'hashing'
  doneBytes: number
  /** Undefined while it isn't known. */
  totalBytes?: number
}

/** How a disk is taken in. */
export interface DiskImportOptions {
  format: StatedFormat
  onProgress(progress: ImportProgress): void
  signal: AbortSignal
}

/** What taking in a disk needs. */
export interface DiskImportComponents extends ConvertComponents {
  clock: Clock
  space: DiskSpace
  limits: Limits
  /** Who the tools run as; undefined when that is us. */
  identity: SandboxIdentity | undefined
}

/** A disk that was taken in: the raw file lies in the folder, durably. */
export interface ImportedDisk extends ScanResult {
  format: 'raw' | 'qcow2'
}

/** One import under way. */
interface Work extends DiskImportComponents, DiskImportOptions {
  folder: string
  disk: FileHandle
}

const spoolName = 'source.qcow2'

/**
 * Takes a disk from outside into `folder/disk.raw`, with holes where it is zero, and makes its
 * index.
 * @throws imageRefused, imageSourceUnreadable, diskFull, the failures of the tools, the signal's
 * reason
 */
export async function importDisk(
  components: DiskImportComponents,
  folder: string,
  source: ByteSource,
  options: DiskImportOptions,
): Promise<ImportedDisk> {
  const disk = await open(join(folder, imageFiles.disk), 'wx+', 0o600)
  try {
    const work: Work = { ...components, ...options, folder, disk }
    const imported = await ('path' in source
      ? importPath(work, resolve(source.path))
      : importStream(work, source.stream, source.sizeBytes))
    await disk.chmod(contentMode)
    return imported
  } finally {
    await disk.close()
  }
}

async function importPath(work: Work, path: string): Promise<ImportedDisk> {
  const file = await openSourceFile(path)
  try {
    const facts = await inspectFile(work, file)
    if (facts.format === 'raw') return await copyRaw(work, file, path)
    if (await isSafeToOpen(work, path)) return await importQcow2(work, path, file, facts)
    await takeCopy(work, file, path)
  } finally {
    await file.handle.close()
  }
  return await importSpool(work)
}

async function importStream(
  work: Work,
  stream: AsyncIterable<Uint8Array>,
  totalBytes: number | undefined,
): Promise<ImportedDisk> {
  const { head, whole } = await peekStream(endWith(work.signal, stream), recognisedBytes)
  const format = work.format === 'raw' ? 'raw' : recogniseFormat(head)
  if (format !== 'raw' && format !== 'qcow2') throw refusalFailure(refuseFormat(format))
  if (format === 'qcow2') {
    await work.space.demand(totalBytes ?? 0)
    await spool(work, whole, totalBytes)
    return await importSpool(work)
  }
  inspect(work, head, blockBytes)
  const { more, finish } = createAdmission(work.space, work.limits.diskBytes, totalBytes)
  const onProgress = (doneBytes: number) =>
    work.onProgress({ stage: 'receiving', doneBytes, totalBytes })
  const scan = await scanStream(work.disk.fd, whole, more, { onProgress, signal: work.signal })
  finish(scan.doneBytes)
  inspect(work, head, scan.doneBytes)
  return { ...scan, format: 'raw' }
}

/** Takes in the copy of a file that lies in our own folder, where nobody else can change it. */
async function importSpool(work: Work): Promise<ImportedDisk> {
  const file = await openSourceFile(join(work.folder, spoolName))
  try {
    const facts = await inspectFile(work, file)
    if (facts.format === 'raw') throw refusalFailure(refuse('notQcow2', 'it changed meanwhile'))
    await giveTo(work, file.handle)
    return await importQcow2(work, spoolName, file, facts)
  } finally {
    await file.handle.close()
  }
}

async function importQcow2(
  work: Work,
  name: string,
  file: SourceFile,
  facts: Qcow2Facts,
): Promise<ImportedDisk> {
  const { folder, disk, signal } = work
  const source = { workingFolder: folder, name }
  const totalBytes = await checkQcow2(work, source, facts, file.sizeBytes, signal)
  await work.space.demand(totalBytes)
  const sizeBytes = Math.ceil(facts.virtualSizeBytes / blockBytes) * blockBytes
  await disk.truncate(sizeBytes)
  await giveTo(work, disk)
  const stopWatching = watchAllocation(work.clock, join(folder, imageFiles.disk), doneBytes =>
    work.onProgress({ stage: 'converting', doneBytes, totalBytes }),
  )
  try {
    const target = { name: imageFiles.disk, folder, sizeBytes }
    await convertQcow2(work, source, target, totalBytes, signal)
  } finally {
    stopWatching()
  }
  const here = { workingFolder: folder, name: imageFiles.disk }
  const ranges = (await mapData(work, here, signal)) ?? wholeFile(sizeBytes)
  await takeBack(work, disk)
  await rm(join(folder, spoolName), { force: true })
  return { ...(await scan(work, { sourceFile: disk.fd, sizeBytes, ranges })), format: 'qcow2' }
}

async function copyRaw(work: Work, file: SourceFile, path: string): Promise<ImportedDisk> {
  const { sizeBytes, allocatedBytes } = file
  await work.space.demand(Math.min(allocatedBytes, sizeBytes))
  const mapped =
    allocatedBytes < sizeBytes
      ? await mapData(work, { workingFolder: work.folder, name: path }, work.signal)
      : undefined
  const ranges = mapped ?? wholeFile(sizeBytes)
  const result = await scan(work, { sourceFile: file.handle.fd, sizeBytes, ranges })
  return { ...result, format: 'raw' }
}

async function scan(
  work: Work,
  source: { sourceFile: number; sizeBytes: number; ranges: ReturnType<typeof wholeFile> },
): Promise<ScanResult> {
  const totalBytes = source.ranges.reduce((sum, { lengthBytes }) => sum + lengthBytes, 0)
  const onProgress = (doneBytes: number) =>
    work.onProgress({ stage: 'hashing', doneBytes, totalBytes })
  const task = { ...source, diskFile: work.disk.fd }
  try {
    return await scanFile(task, { onProgress, signal: work.signal })
  } catch (error) {
    if (!isErrno(error, shortened)) throw error
    throw refusalFailure(refuse('truncated', 'it became shorter while it was read'))
  }
}

async function inspectFile(work: Work, file: SourceFile): Promise<RawFacts | Qcow2Facts> {
  work.onProgress({ stage: 'inspecting', doneBytes: 0, totalBytes: file.sizeBytes })
  return inspect(work, await readHead(file.handle, inspectedBytes), file.sizeBytes)
}

function inspect(work: Work, head: Buffer, fileBytes: number): RawFacts | Qcow2Facts {
  const { diskBytes } = work.limits
  const facts = inspectHeader(head, { format: work.format, fileBytes, diskBytes })
  if (facts.format === 'refused') throw refusalFailure(facts)
  return facts
}

/**
 * Whether a tool may open the file where it is: it can read it, and nobody can change it
 * meanwhile.
 */
async function isSafeToOpen(work: Work, path: string): Promise<boolean> {
  if (!(await isOursAlone(path))) return false
  const { code } = await work.sandbox('test', ['-r', path], { timeoutMs: 10_000, fileBytes: 0 })
  return code === 0
}

/** Copies a file into our own folder, by reference where the file system can. */
async function takeCopy(work: Work, file: SourceFile, path: string): Promise<void> {
  const copy = join(work.folder, spoolName)
  try {
    await copyFile(path, copy, constants.COPYFILE_FICLONE_FORCE | constants.COPYFILE_EXCL)
  } catch {
    await rm(copy, { force: true })
    await work.space.demand(file.allocatedBytes)
    const stream = file.handle.createReadStream({ start: 0, autoClose: false })
    await spool(work, stream, file.sizeBytes)
  }
}

async function spool(
  work: Work,
  stream: AsyncIterable<Uint8Array>,
  totalBytes: number | undefined,
): Promise<void> {
  await spoolStream(join(work.folder, spoolName), stream, {
    admission: createAdmission(work.space, work.limits.diskBytes, totalBytes),
    onProgress: doneBytes => work.onProgress({ stage: 'receiving', doneBytes, totalBytes }),
    signal: work.signal,
  })
}

/** The tools own what they work on, and nothing else. */
async function giveTo({ identity }: Work, file: FileHandle): Promise<void> {
  if (identity !== undefined) await file.chown(identity.uid, identity.gid)
}

async function takeBack({ identity }: Work, file: FileHandle): Promise<void> {
  if (identity !== undefined) await file.chown(process.getuid?.() ?? 0, process.getgid?.() ?? 0)
}

function wholeFile(sizeBytes: number): { offsetBytes: number; lengthBytes: number }[] {
  return [{ offsetBytes: 0, lengthBytes: sizeBytes }]
}
