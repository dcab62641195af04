import { join } from 'node:path'
import Type, { type Static } from 'typebox'
import { Value } from 'typebox/value'
import { readJsonFile, writeFileAtomic } from '../../base/files.ts'
import type { FleetRecord } from '../../cluster/fleet/member.ts'

const count = Type.Integer({ minimum: 0 })
const seenSchema = Type.Record(
  Type.String({ maxLength: 64 }),
  Type.Object({ era: count, revisionBase: count }),
)

/** How far a fleet had come when this host left it. */
export type SeenEra = Pick<FleetRecord, 'era' | 'revisionBase'>

/** Of so many fleets that this host has left it is known; nobody leaves more. */
const fleetsMost = 16

const fileOf = (dataDir: string): string => join(dataDir, 'seen-eras.json')

/** The highest that this host has seen of a fleet which it has left; zeros when it was in none. */
export async function seenEra(dataDir: string, fleetId: string): Promise<SeenEra> {
  return (await readSeen(dataDir))[fleetId] ?? { era: 0, revisionBase: 0 }
}

/** Keeps it, so that a backup which is restored here begins an era that never was. */
export async function rememberEra(
  dataDir: string,
  { fleetId, era, revisionBase }: FleetRecord,
): Promise<void> {
  const { [fleetId]: _, ...others } = await readSeen(dataDir)
  const kept = Object.entries(others).slice(1 - fleetsMost)
  const seen = Object.fromEntries([...kept, [fleetId, { era, revisionBase }]])
  await writeFileAtomic(fileOf(dataDir), `${JSON.stringify(seen)}\n`)
}

async function readSeen(dataDir: string): Promise<Static<typeof seenSchema>> {
  const value = await readJsonFile(fileOf(dataDir)).catch(() => undefined)
  return Value.Check(seenSchema, value) ? value : {}
}
