import type { Command } from 'commander'
import { failure, messageOf } from '../../../base/errors.ts'
import type { ApiClient } from '../api-client.ts'
import { collect, connect, optionsOf } from '../command-module.ts'
import type { Invocation } from '../invocation.ts'
import { qualifiedName } from '../kinds.ts'
import { type Manifest, readManifests } from '../manifest.ts'
import { note, print } from '../output.ts'
import { createObject, getObject, mergeObject } from '../resource-client.ts'
import { StatusError } from '../status-error.ts'
import { printable } from '../text.ts'
import { isRecord } from '../untyped.ts'

interface ApplyOptions {
  filename: string[]
}

/** `macfleet apply`. */
export function define(command: Command, invocation: Invocation): void {
  command
    .requiredOption(
      '-f, --filename <file>',
      'file, folder or - for standard input; repeatable',
      collect,
    )
    .addHelpText(
      'after',
      `
A field that a file does not name stays as it is; one that is null goes back to its default.

Examples:
  macfleet apply -f fleet.yaml
  macfleet get vm web -o yaml | sed 's/cpu: 1/cpu: 2/' | macfleet apply -f -`,
    )
    .action(async () => {
      const { filename } = optionsOf<ApplyOptions>(command)
      const { client, namespace } = await connect(invocation, command)
      const manifests = await readManifests(filename, namespace, invocation.stdin)
      await applyAll(manifests, client, invocation)
    })
}

/** Tries every object; those that failed are told as they come, and counted at the end. */
async function applyAll(
  manifests: readonly Manifest[],
  client: ApiClient,
  invocation: Invocation,
): Promise<void> {
  let failed = 0
  for (const manifest of manifests) {
    try {
      const outcome = await apply(manifest, client)
      await print(invocation, `${qualifiedName(manifest.kind, manifest.name)} ${outcome}`)
    } catch (thrown) {
      // Neither a daemon that is away nor Ctrl-C is about this one object.
      if (!(thrown instanceof StatusError)) throw thrown
      failed++
      await note(invocation, `error: ${manifest.source}: ${printable(messageOf(thrown))}`)
    }
  }
  if (failed > 0) throw failure('someFailed', { failed, total: manifests.length })
}

type Outcome = 'created' | 'configured' | 'unchanged'

async function apply(manifest: Manifest, client: ApiClient): Promise<Outcome> {
  const { kind, namespace, name } = manifest
  const object = applicable(manifest.object)
  const before = await find(manifest, client)
  if (before === undefined) {
    try {
      await createObject(client, kind, namespace, withoutNulls(object))
      return 'created'
    } catch (thrown) {
      // Somebody else created it in between.
      if (!(thrown instanceof StatusError) || thrown.reason !== 'AlreadyExists') throw thrown
    }
  }
  const after = await mergeObject(client, kind, { namespace, name }, object)
  const same = before?.metadata.resourceVersion === after.metadata.resourceVersion
  return same ? 'unchanged' : 'configured'
}

async function find({ kind, namespace, name }: Manifest, client: ApiClient) {
  try {
    return await getObject(client, kind, namespace, name)
  } catch (thrown) {
    if (thrown instanceof StatusError && thrown.reason === 'NotFound') return undefined
    throw thrown
  }
}

/** A null takes a field away; of an object that is not there yet there is nothing to take. */
function withoutNulls(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withoutNulls)
  if (!isRecord(value)) return value
  const kept = Object.entries(value).filter(([, member]) => member !== null)
  return Object.fromEntries(kept.map(([name, member]) => [name, withoutNulls(member)]))
}

/** Members of metadata that the server gives: in what `get -o yaml` printed, and not ours to set. */
const given = new Set([
  'uid',
  'resourceVersion',
  'generation',
  'creationTimestamp',
  'deletionTimestamp',
  'managedFields',
  'selfLink',
])

/** The part of an object that a user decides. */
function applicable(object: Record<string, unknown>): Record<string, unknown> {
  const { status: _, metadata, ...rest } = object
  const members = Object.entries(metadata ?? {}).filter(([name]) => !given.has(name))
  return { ...rest, metadata: Object.fromEntries(members) }
}
