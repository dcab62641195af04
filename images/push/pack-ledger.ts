import { createHash } from 'node:crypto'
import { readdirSync, rmSync } from 'node:fs'
import { readFile, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import Type, { type Static } from 'typebox'
import { Value } from 'typebox/value'
import { makeFolder, namesIn, writeFileAtomic } from '../../base/files.ts'
import type { Limits } from '../../base/limits.ts'
import type { Log } from '../../base/log.ts'
import type { Pack } from '../format/locations.ts'
import { digestOf, hashOf } from '../layer-index.ts'

/** A pack that was sent to a repository: its chunks, one after another. */
export interface PushedPack {
  repository: string
  pack: Pack
  chunks: { digest: string; lengthBytes: number }[]
}

/**
 * Which packs this host has sent where, durably: after a crash, and for other images, they need not
 * be sent again. Never the truth: whether the registry still has a pack it says itself.
 */
export interface PackLedger {
  /** Remembers a pack that a registry has taken whole. */
  add(registry: string, pushed: PushedPack): Promise<void>
  /** The packs that were sent to a registry, the latest first. */
  of(registry: string): AsyncIterable<PushedPack>
  /** Forgets a pack that is not there any more. */
  forget(registry: string, repository: string, pack: Pack): Promise<void>
}

const schema = Type.Object({
  registry: Type.String(),
  repository: Type.String(),
  digest: Type.String({ pattern: '^sha256:[0-9a-f]{64}$' }),
  sizeBytes: Type.Integer({ minimum: 1 }),
  /** Base64 of 32 bytes of hash and 4 of the frame's length, big endian, for each. */
  chunks: Type.String(),
})
type Written = Static<typeof schema>
const hashBytes = 32
const entryBytes = hashBytes + 4

/** A ledger in a folder of its own, a file for each pack. */
export function createPackLedger(
  folder: string,
  { limits, log }: { limits: Limits; log: Log },
): PackLedger {
  makeFolder(folder)
  // What a crash left half written.
  for (const name of readdirSync(folder)) if (!isRecord(name)) rmSync(join(folder, name))
  return {
    async add(registry, { repository, pack, chunks }) {
      const entries = chunks.flatMap(({ digest, lengthBytes }) => {
        const length = Buffer.alloc(4)
        length.writeUInt32BE(lengthBytes)
        return [hashOf(digest), length]
      })
      const base64 = Buffer.concat(entries).toString('base64')
      const written: Written = { registry, repository, ...pack, chunks: base64 }
      await writeFileAtomic(
        join(folder, nameOf(registry, repository, pack)),
        JSON.stringify(written),
      )
      const surplus = (await namesByAge(folder)).slice(limits.pushedPacks)
      for (const name of surplus) await rm(join(folder, name), { force: true })
    },
    async *of(registry) {
      for (const name of await namesByAge(folder)) {
        const found = await readPushed(join(folder, name))
        if (found === undefined) {
          log.warn({ name }, 'the record of a pack that was sent is damaged: it is forgotten')
          await rm(join(folder, name), { force: true })
        } else if (found.registry === registry) {
          yield found
        }
      }
    },
    async forget(registry, repository, pack) {
      await rm(join(folder, nameOf(registry, repository, pack)), { force: true })
    },
  }
}

function nameOf(registry: string, repository: string, { digest }: Pack): string {
  const hash = createHash('sha256').update(`${registry} ${repository}`).digest('hex').slice(0, 32)
  return `${hash}-${hashOf(digest).toString('hex')}.json`
}

function isRecord(name: string): boolean {
  return name.endsWith('.json')
}

/** Those of whole records, the latest first. */
async function namesByAge(folder: string): Promise<string[]> {
  const names = (await namesIn(folder)).filter(isRecord)
  const aged = await Promise.all(
    names.map(async name => ({ name, ms: (await stat(join(folder, name))).mtimeMs })),
  )
  return aged.sort((a, b) => b.ms - a.ms).map(({ name }) => name)
}

async function readPushed(path: string): Promise<(PushedPack & { registry: string }) | undefined> {
  const written = parse(await readFile(path, 'utf8'))
  if (!Value.Check(schema, written)) return undefined
  const { registry, repository, digest, sizeBytes } = written
  const bytes = Buffer.from(written.chunks, 'base64')
  const chunks = []
  let sumBytes = 0
  for (let at = 0; at + entryBytes <= bytes.length; at += entryBytes) {
    const lengthBytes = bytes.readUInt32BE(at + hashBytes)
    chunks.push({ digest: digestOf(bytes.subarray(at, at + hashBytes)), lengthBytes })
    sumBytes += lengthBytes
  }
  if (sumBytes !== sizeBytes) return undefined
  return { registry, repository, pack: { digest, sizeBytes }, chunks }
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
