import type { Command } from 'commander'
import { failure, messageOf } from '../../../base/errors.ts'
import type { Host } from '../../../resources/host.ts'
import type { Resource } from '../../../resources/kind.ts'
import { type Colour, createPaint } from '../colour.ts'
import { type Connection, connect, optionsOf } from '../command-module.ts'
import { checkHost, checkSocket, type Finding, hostPlaces } from '../doctor-checks.ts'
import type { Invocation } from '../invocation.ts'
import { hostName } from '../kinds.ts'
import { formatValue, outputFormat, print } from '../output.ts'
import { listObjects } from '../resource-client.ts'
import { printable } from '../text.ts'

/** `macfleet doctor`. */
export function define(command: Command, invocation: Invocation): void {
  command
    .option('-o, --output <format>', 'table, json or yaml', 'table')
    .addHelpText(
      'after',
      `
Looks at the machine that it runs on, and asks the daemon how its hosts are. Ends with 1 when
something is missing without which no guest runs, or can not be reached.

Example:
  macfleet doctor`,
    )
    .action(async () => {
      const format = outputFormat(optionsOf<{ output: string }>(command).output)
      const connection = await connect(invocation, command)
      const findings = [
        ...(await checkHost(hostPlaces(invocation.environment))),
        await checkSocket(connection.client.socket, process.getgroups?.() ?? []),
        ...(await askDaemon(connection)),
      ]
      if (format === 'json' || format === 'yaml') {
        await print(invocation, await formatValue({ findings }, format))
      } else await show(findings, invocation)
      const missing = findings.filter(({ level }) => level === 'missing').length
      if (missing > 0) throw failure('essentialsMissing', { count: missing })
    })
}

/** What the daemon knows of its hosts; that it is not there is told as such. */
async function askDaemon({ client }: Connection): Promise<Finding[]> {
  try {
    const { items } = await listObjects(client, hostName, {})
    const hosts = items.filter(isHost).flatMap(hostFindings)
    return [{ subject: 'daemon', level: 'ok', detail: `answers on ${client.socket}` }, ...hosts]
  } catch (thrown) {
    return [{ subject: 'daemon', level: 'warning', detail: messageOf(thrown) }]
  }
}

function isHost(object: Resource): object is Host {
  return object.kind === hostName.kind
}

function hostFindings({ metadata, status }: Host): Finding[] {
  const subject = `host ${metadata.name}`
  const accelerator = status?.accelerator
  const reason = status?.acceleratorReason ?? ''
  const why = reason === '' ? '' : `: ${reason}`
  const executed: Finding[] =
    accelerator === undefined
      ? []
      : [
          {
            subject,
            level: accelerator === 'kvm' ? 'ok' : 'warning',
            detail: `guests run by ${accelerator}${why}`,
          },
        ]
  const containment = (status?.missingContainment ?? []).map(
    (detail): Finding => ({
      subject,
      level: 'warning',
      detail: `guests are not confined: ${detail}`,
    }),
  )
  const conditions = (status?.conditions ?? [])
    .filter(condition => condition.type === 'Ready')
    .map(
      ({ status: ready, message, reason: word }): Finding => ({
        subject,
        level: ready === 'True' ? 'ok' : 'missing',
        detail: ready === 'True' ? 'ready' : `not ready: ${message || word}`,
      }),
    )
  return [...conditions, ...executed, ...containment]
}

const marks: Record<Finding['level'], { text: string; colour: Colour }> = {
  ok: { text: 'ok', colour: 'green' },
  warning: { text: 'warning', colour: 'yellow' },
  missing: { text: 'missing', colour: 'red' },
}

async function show(findings: readonly Finding[], invocation: Invocation): Promise<void> {
  const paint = createPaint(invocation.stdout, invocation.environment)
  const columns = Math.max(...findings.map(({ subject }) => subject.length))
  for (const { subject, level, detail, remedy } of findings) {
    const { text, colour } = marks[level]
    const head = `${paint(colour, text.padEnd(7))}  ${subject.padEnd(columns)}  `
    await print(invocation, head + printable(detail))
    if (remedy !== undefined) {
      await print(invocation, `${' '.repeat(columns + 11)}${paint('dim', `-> ${remedy}`)}`)
    }
  }
}
