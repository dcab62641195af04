import type { Command } from 'commander'
import type { Resource } from '../../../resources/kind.ts'
import { createPaint } from '../colour.ts'
import { connect } from '../command-module.ts'
import { describeObject } from '../description.ts'
import { eventsOf } from '../events.ts'
import type { Invocation } from '../invocation.ts'
import { print } from '../output.ts'
import { getObject, listObjects } from '../resource-client.ts'
import { readTargets } from '../targets.ts'

/** `macfleet describe`. */
export function define(command: Command, invocation: Invocation): void {
  command
    .argument('<kind>', 'vm, image, host, namespace or event; or KIND/NAME')
    .argument('[names...]', 'objects; all of them when left out')
    .addHelpText(
      'after',
      `
Examples:
  macfleet describe vm web
  macfleet describe image/debian`,
    )
    .action(async () => {
      const targets = readTargets(command.args, 'macfleet describe')
      const connection = await connect(invocation, command)
      const { client, namespace } = connection
      const paint = createPaint(invocation.stdout, invocation.environment)
      const nowMs = invocation.clock.wallMs()
      let first = true
      for (const { kind, names } of targets) {
        const objects: Resource[] =
          names.length === 0
            ? (await listObjects(client, kind, { namespace })).items
            : await Promise.all(names.map(name => getObject(client, kind, namespace, name)))
        for (const object of objects) {
          if (!first) await print(invocation, '')
          first = false
          const events = kind.kind === 'Event' ? [] : await eventsOf(client, namespace, object)
          await print(invocation, ...(await describeObject({ object, events, nowMs, paint })))
        }
      }
    })
}
