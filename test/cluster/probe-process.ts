import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { connect, createServer } from 'node:net'
import { createInterface } from 'node:readline'
import type { ProbeRequest } from './probe.ts'

/**
 * Runs in a host's namespace: answers other probes, and tries the links as its test asks, a JSON
 * line for each. Ends with its standard input.
 *
 * node probe-process.ts ADDRESS
 */
const own = process.argv[2]
const port = 9000
const group = '224.0.0.251'
const say = (value: unknown): void => void process.stdout.write(`${JSON.stringify(value)}\n`)

const server = createServer(socket => {
  socket.on('error', () => {})
  socket.once('data', asked => socket.end(Buffer.alloc(Number(asked))))
})
server.listen(port, own)

const heard = new Set<string>()
const calls = createSocket({ type: 'udp4', reuseAddr: true })
calls.on('message', (_, from) => heard.add(from.address))
calls.bind(port)
await Promise.all([once(server, 'listening'), once(calls, 'listening')])
calls.addMembership(group)
// Far enough for other racks, if only the router passed it on.
calls.setMulticastTTL(8)

function fetchBytes(address: string, bytes: number, timeoutMs: number): Promise<number | null> {
  const startMs = performance.now()
  return new Promise(resolve => {
    const socket = connect(port, address, () => socket.write(String(bytes)))
    let gotBytes = 0
    const timer = setTimeout(() => socket.destroy(), timeoutMs)
    socket.on('data', data => {
      gotBytes += data.length
    })
    socket.on('error', () => {})
    socket.on('close', () => {
      clearTimeout(timer)
      resolve(gotBytes === bytes ? performance.now() - startMs : null)
    })
  })
}

say('ready')
for await (const line of createInterface({ input: process.stdin })) {
  const request = JSON.parse(line) as ProbeRequest
  if (request.ask === 'fetch') {
    say(await fetchBytes(request.address, request.bytes, request.timeoutMs))
  } else if (request.ask === 'call') {
    await new Promise(resolve => calls.send('here', port, group, resolve))
    say(null)
  } else {
    say([...heard].filter(address => address !== own).sort())
    heard.clear()
  }
}
process.exit(0)
