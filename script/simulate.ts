import { parseArgs } from 'node:util'
import { simulate } from '../test/simulation/simulate.ts'

const { values } = parseArgs({
  options: {
    seeds: { type: 'string', default: '100' },
    hosts: { type: 'string', default: '5' },
    seed: { type: 'string', default: '1' },
    trace: { type: 'boolean', default: false },
  },
})
const first = Number(values.seed)
for (let seed = first; seed < first + Number(values.seeds); seed++) {
  const began = performance.now()
  const r = await simulate({ seed, hosts: Number(values.hosts) })
  const { story, ...rest } = r
  console.log(JSON.stringify(rest), Math.round(performance.now() - began), 'ms')
  if (values.trace || r.violation) {
    const subjects = r.violation?.subjects ?? []
    const lines = story.filter(
      l =>
        values.trace ||
        l.who === 'world' ||
        l.who === 'etcd' ||
        subjects.some(s => l.text.includes(s) || l.who.split(' ')[0] === s),
    )
    for (const { atMs, who, text } of values.trace ? lines : lines.slice(-120))
      console.log((atMs / 1000).toFixed(3), who, text)
    if (r.violation) process.exit(1)
  }
}
