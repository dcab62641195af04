import { failure } from '../base/errors.ts'
import { refusalFailure } from './inspect-header.ts'
import type { Qcow2Facts } from './inspect-qcow2.ts'
import type { Extent } from './layer-index.ts'
import { refuse } from './refusal.ts'
import type { Sandbox } from './sandbox.ts'

/** A file that a tool works on: its name, seen from the folder that the tool runs in. */
export interface ToolFile {
  workingFolder: string
  /** A name in that folder, or an absolute path. */
  name: string
}

/** What the tools need. */
export interface ConvertComponents {
  sandbox: Sandbox
  /** Path or name of the program qemu-img. */
  qemuImg: string
}

const MiB = 1024 * 1024
const startMs = 60_000
/** The slowest disk that is waited for: a conversion at less than 10 MiB/s is taken as stuck. */
const slowestBytesPerMs = (10 * MiB) / 1000
/** About 75,000 runs; parsing more would hold up the daemon for longer than reading holes takes. */
const mapOutputBytes = 8 * MiB

/**
 * Lets qemu-img check the tables of an inspected qcow2 file: a cluster beyond the end of the file
 * (one that is cut short by a cluster or more) or used twice is refused.
 * @returns the bytes of disk that it holds, an upper bound of what its conversion writes
 * @throws imageRefused (damaged), commandMissing, commandTimedOut
 */
export async function checkQcow2(
  components: ConvertComponents,
  file: ToolFile,
  facts: Qcow2Facts,
  fileBytes: number,
  signal?: AbortSignal,
): Promise<number> {
  const args = ['check', '--output=json', describeSource(file.name)]
  const result = await components.sandbox(components.qemuImg, args, {
    timeoutMs: timeoutFor(fileBytes),
    fileBytes: 0,
    workingFolder: file.workingFolder,
    signal,
  })
  const report = parseObject(result.stdout)
  // Exit code 3: clusters that nothing uses. They take room in the file and harm nothing.
  if (report === undefined || (result.code !== 0 && result.code !== 3)) {
    const said = firstLine(result.stderr) || `qemu-img ended with code ${result.code}`
    const detail = `its tables are damaged or it is cut short (${said})`
    throw refusalFailure(refuse('damaged', detail, 'Get the file anew'))
  }
  const clusters = Number(report['allocated-clusters'] ?? 0)
  return Math.min(clusters * facts.clusterBytes, facts.virtualSizeBytes)
}

/**
 * Writes the disk in a qcow2 file as raw bytes, holes kept, into a file that is there already,
 * empty and of the disk's size. Formats are stated on both sides, and no backing file is followed.
 * @throws diskFull, imageRefused (damaged), commandMissing, commandTimedOut
 */
export async function convertQcow2(
  components: ConvertComponents,
  source: ToolFile,
  target: { name: string; folder: string; sizeBytes: number },
  dataBytes: number,
  signal?: AbortSignal,
): Promise<void> {
  const options = ['-n', '--target-is-zero', '-S', '4k', '--target-image-opts']
  const sink = `driver=raw,file.driver=file,file.filename=${target.name}`
  const args = ['convert', ...options, describeSource(source.name), sink]
  const result = await components.sandbox(components.qemuImg, args, {
    timeoutMs: timeoutFor(dataBytes),
    fileBytes: target.sizeBytes,
    workingFolder: source.workingFolder,
    signal,
  })
  if (result.code === 0) return
  if (result.stderr.includes('No space left on device')) {
    throw failure('diskFull', { folder: target.folder, detail: 'no space left for the image' })
  }
  const said = firstLine(result.stderr) || `qemu-img ended with code ${result.code}`
  throw refusalFailure(refuse('damaged', `it can't be converted (${said})`, 'Get the file anew'))
}

/**
 * The runs of a raw file that may hold data; the rest are holes. Undefined when it can't be told
 * (no qemu-img, no rights on the file, too many runs): the caller then reads it whole.
 * @throws the signal's reason
 */
export async function mapData(
  components: ConvertComponents,
  file: ToolFile,
  signal?: AbortSignal,
): Promise<Extent[] | undefined> {
  const source = { driver: 'raw', file: { driver: 'file', filename: file.name } }
  const args = ['map', '--output=json', `json:${JSON.stringify(source)}`]
  try {
    const { code, stdout } = await components.sandbox(components.qemuImg, args, {
      timeoutMs: startMs,
      fileBytes: 0,
      outputBytes: mapOutputBytes,
      workingFolder: file.workingFolder,
      signal,
    })
    const entries = code === 0 ? parse(stdout) : undefined
    if (!Array.isArray(entries)) return undefined
    return entries
      .filter(isDataRun)
      .map(run => ({ offsetBytes: run.start, lengthBytes: run.length }))
  } catch {
    signal?.throwIfAborted()
    return undefined
  }
}

function isDataRun(entry: unknown): entry is { start: number; length: number } {
  if (typeof entry !== 'object' || entry === null) return false
  const { data, start, length }: { data?: unknown; start?: unknown; length?: unknown } = entry
  return data === true && Number.isSafeInteger(start) && Number.isSafeInteger(length)
}

/** The whole block graph, so that nothing in the file decides what else is opened. */
function describeSource(filename: string): string {
  const graph = { driver: 'qcow2', file: { driver: 'file', filename }, backing: null }
  return `json:${JSON.stringify(graph)}`
}

function timeoutFor(bytes: number): number {
  return startMs + Math.ceil(bytes / slowestBytesPerMs)
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

function parseObject(text: string): Record<string, unknown> | undefined {
  const value = parse(text)
  return typeof value === 'object' && value !== null ? { ...value } : undefined
}

/** What a tool said first, without its own name and cut to a length for people. */
function firstLine(text: string): string {
  return (text.split('\n', 1)[0] ?? '').replace(/^qemu-img: /, '').slice(0, 200)
}
