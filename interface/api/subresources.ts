import type { Duplex, Readable } from 'node:stream'
import type { JsonValue } from '../../base/json.ts'
import type { Image } from '../../resources/image.ts'
import type { VirtualMachine } from '../../resources/virtual-machine.ts'

/** The parts of an image whose bytes are uploaded. */
export type ImagePart = 'content' | 'kernel' | 'initrd'

/** What an uploaded disk is: said by the client; `auto` lets our own header inspector decide. */
export type DiskFormat = 'raw' | 'qcow2' | 'auto'

/** Aborted when the client has gone away or the daemon stops; what was begun is then given up. */
export interface Cancellable {
  signal: AbortSignal
}

/** What is to run inside a guest. */
export interface ExecRequest {
  /** The program and its arguments; never empty. */
  command: readonly string[]
  /** Whether it gets a terminal: then stderr comes with stdout. */
  tty: boolean
  /** Whether input will come; without it the program's input is at its end at once. */
  stdin: boolean
}

/** Columns and rows of the client's terminal. */
export interface TerminalSize {
  columns: number
  rows: number
}

/** The client's end of a running command. */
export interface ExecSession extends Cancellable {
  /**
   * What the client types; it ends when the client closes its input. Read it with back-pressure.
   */
  input: Readable
  /** Sends output; resolves when the client has room for more. Does nothing once it has gone. */
  send(channel: 'stdout' | 'stderr', bytes: Buffer): Promise<void>
  /** Called with each size of the client's terminal, the first one too. */
  onResize(listener: (size: TerminalSize) => void): void
}

/** Runs the command to its end. What it throws is told to the client as an internal failure. */
export type RunCommand = (session: ExecSession) => Promise<{ exitCode: number }>

/** Which part of a serial log. */
export interface LogRequest extends Cancellable {
  /** Only so many lines, counted from the end. */
  tailLines?: number
  /** At most so many bytes. */
  limitBytes?: number
  /** Go on with what is written, until the client leaves. */
  follow: boolean
}

/** How a part of an image comes in. */
export interface UploadRequest extends Cancellable {
  /** Of the disk; for kernel and initrd it says nothing. */
  format: DiskFormat
  /** The length that the client announced; undefined when it did not. */
  sizeBytes?: number
}

/** Where an image is sent. */
export interface PushRequest {
  /** `HOST[:PORT]/NAME[:TAG]` */
  reference: string
  /** A Secret of the image's namespace with the credentials; the host's own file without it. */
  pushSecret?: string
}

/** One line of the answer to a push. */
export type PushEvent =
  | { progress: { stage: string; doneBytes: number; totalBytes: number } }
  | { pushed: { reference: string; digest: string; sentBytes: number; chunks: number } }

/** What a machine's image is to be. */
export interface CommitRequest extends Cancellable {
  /** Its name, in the machine's namespace. */
  name: string
  description?: string
  /** Never removed to make room. */
  pinned: boolean
}

/**
 * What only the daemon can do for a request. The API has read the object and its parameters, speaks
 * HTTP and WebSocket, keeps the bounds of `limits`, and turns table errors into Status answers.
 */
export interface Subresources {
  /**
   * Opens the serial console before the connection is upgraded, so that a refusal is a plain
   * answer.
   * @returns both directions as raw bytes; it is destroyed when the client leaves, and its end
   *   ends the client's session (an error of the stream is told as the reason)
   * @throws consoleUnavailable, tooMany
   */
  openConsole(machine: VirtualMachine, request: Cancellable): Promise<Duplex>

  /**
   * Checks that a command can run, before the connection is upgraded.
   * @throws agentUnavailable, tooMany
   */
  prepareCommand(machine: VirtualMachine, request: ExecRequest & Cancellable): Promise<RunCommand>

  /** The serial log; the stream is destroyed when the client leaves. */
  openLog(machine: VirtualMachine, request: LogRequest): Promise<Readable>

  /**
   * Takes the bytes of an image's part; resolves when they are kept for good, with the image as it
   * is then. Reading slowly slows the client down. `bytes` fails when the client breaks off.
   */
  receiveImagePart(
    image: Image,
    part: ImagePart,
    bytes: Readable,
    request: UploadRequest,
  ): Promise<Image>

  /**
   * Sends an image to a registry.
   * @returns how far it is, again and again, and last `{ pushed }` with the reference and counts
   * @throws imageNotHere, and what the registry refuses
   */
  pushImage(image: Image, request: PushRequest & Cancellable): AsyncIterable<PushEvent>

  /**
   * Makes an image of a machine's image and what it wrote since, while it goes on or is stopped;
   * resolves with the image when that is here for good.
   */
  commitMachine(machine: VirtualMachine, request: CommitRequest): Promise<Image>

  /**
   * Reads everything again and compares it with the index; with `repair`, what is wrong comes again
   * from where the image can be had. The answer is shown as it is.
   */
  verifyImage(image: Image, request: Cancellable & { repair: boolean }): Promise<JsonValue>

  /**
   * What lies in the library that the operator named, as far as it is listed; shown as it is.
   * @throws libraryMissing
   */
  listLibrary(request: Cancellable): Promise<JsonValue>

  /**
   * Reads what a name in the library stands for and compares it with its digests; shown as it is.
   * @throws libraryMissing, notFound
   */
  checkLibrary(name: string, request: Cancellable): Promise<JsonValue>

  /** What is known of the content; the answer is shown as it is. */
  inspectImage(image: Image, request: Cancellable): Promise<JsonValue>
}
