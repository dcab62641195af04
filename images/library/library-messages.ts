/** What the process that reads a library is started with. */
export interface LibraryTask {
  folder: string
}

/** What it is asked. Paths are lists of names, below the library's folder. */
export type LibraryRequest = { id: number } & (
  | { type: 'list'; path: string[]; limit: number }
  | { type: 'look'; path: string[] }
  | { type: 'read'; path: string[]; offsetBytes: number; lengthBytes: number }
)

/** What is in a folder; links, devices and the like are `other`. */
export interface FolderEntry {
  name: string
  type: 'file' | 'folder' | 'other'
}

/** A file as it is now. */
export interface FileFacts {
  sizeBytes: number
  /** When its content was changed last, nanoseconds since the epoch, in decimal. */
  changed: string
}

/** What it answers: one for each request, in any order. */
export type LibraryAnswer = { id: number } & (
  | { type: 'listed'; entries: FolderEntry[]; isWhole: boolean }
  | { type: 'looked'; facts: FileFacts }
  /** Fewer bytes than were asked for: the file ends there. */
  | { type: 'read'; bytes: Uint8Array }
  /** The system's error, by its code; `NOT_REGULAR`: it is no regular file. */
  | { type: 'failed'; code: string }
)
