import { parentPort, workerData } from 'node:worker_threads'
import { systemClock } from '../../base/clock.ts'
import { assert } from '../../base/errors.ts'
import type { Log } from '../../base/log.ts'
import { systemRandom } from '../../base/random.ts'
import { createFillings, type Fillings } from './fillings.ts'
import type { FromTransfer, ThreadInit, ToTransfer } from './messages.ts'
import type { OpenSource, SourceComponents } from './open-source.ts'
import type { TransferTls } from './transfers.ts'

// A thread of its own: it decodes, hashes and writes chunks, and answers guests that read images on
// their way; the daemon's event loop, which other guests depend on, goes on meanwhile.

assert(parentPort, 'this file runs as a worker thread')
const port = parentPort
const init: ThreadInit = workerData
let tls: TransferTls | undefined = init.tls

function send(message: FromTransfer): void {
  port.postMessage(message)
}

/** Its lines go through the main thread, whose log has a place to go. */
function createThreadLog(bound: object): Log {
  const say = (level: 'debug' | 'info' | 'warn' | 'error') => (fields: object, message: string) =>
    send({ type: 'log', level, fields: { ...bound, ...fields }, message })
  return {
    debug: say('debug'),
    info: say('info'),
    warn: say('warn'),
    error: say('error'),
    child: fields => createThreadLog({ ...bound, ...fields }),
  }
}

async function start(): Promise<Fillings> {
  const components: SourceComponents = {
    clock: systemClock,
    random: systemRandom,
    log: createThreadLog({}),
    limits: init.limits,
    tls: () => tls,
  }
  const sources: { createOpener(components: SourceComponents): OpenSource } = await import(
    init.sourcesModule
  )
  const open = sources.createOpener(components)
  return createFillings({ host: init.host, rotten: init.rotten, send }, { ...components, open })
}

async function take(fillings: Fillings, message: ToTransfer): Promise<void> {
  if (message.type === 'tls') tls = message.tls
  else if (message.type === 'fill') fillings.fill(message.fill, message.request, message.tellAll)
  else if (message.type === 'sources') fillings.setSources(message.fill, message.sources)
  else if (message.type === 'want') fillings.setWant(message.fill, message.want)
  else if (message.type === 'serve') fillings.serve(message)
  else if (message.type === 'endServing') fillings.endServing(message.fill, message.serving)
  else if (message.type === 'stop') fillings.stop(message.fill)
  else {
    await fillings.close()
    send({ type: 'closed' })
  }
}

const started = start()
port.on('message', (message: ToTransfer) => {
  // What throws here is a fault of ours: the thread dies of it and is started anew.
  void started.then(fillings => take(fillings, message))
})
