import fc from 'fast-check'
import { expect, test } from 'vitest'
import { randomImage } from '../../test/support/random-layers.ts'
import { composeLayers, visibleExtents } from '../composition.ts'
import { subtractAll } from '../extents.ts'
import { blockBytes } from '../layer-index.ts'
import { planBase } from './plan-base.ts'

test('a copy of the base has what is kept, and zeros where nothing is to be seen', () => {
  const layers = fc.integer({ min: 1, max: 3 })
  fc.assert(
    fc.property(
      fc.integer(),
      layers,
      layers,
      layers,
      fc.nat(40),
      (seed, shared, more, own, grow) => {
        const common = randomImage({ seed, layerCount: shared, diskBlocks: 100 })
        const extend = (count: number, salt: number, diskBlocks: number) =>
          count === 1
            ? common
            : randomImage({
                seed: seed + salt,
                layerCount: shared + count - 1,
                diskBlocks,
                base: common,
              })
        const base = extend(more, 1, 100 + grow)
        const image = extend(own, 2, 100 + (grow % 7))
        const views = composeLayers(image.layers)
        const plan = planBase(views, composeLayers(base.layers), shared)
        const disk = Buffer.concat([base.disk], image.disk.length)
        const at = (offset: number) => disk.subarray(offset, offset + blockBytes)
        expect(subtractAll(plan.stale, plan.holes)).toEqual([])
        // Either or both ways of making it zero are right.
        for (const { offsetBytes, lengthBytes } of seed % 2 === 0 ? plan.stale : plan.holes) {
          disk.fill(0, offsetBytes, offsetBytes + lengthBytes)
        }
        const seen = new Set<number>()
        for (const [layer, view] of views.entries()) {
          for (const chunk of view.index.chunks.keys()) {
            const kept = plan.kept.some(name => name.layer === layer && name.chunk === chunk)
            for (const { offsetBytes, lengthBytes } of visibleExtents(view, chunk)) {
              for (let more = 0; more < lengthBytes; more += blockBytes) {
                const offset = offsetBytes + more
                seen.add(offset)
                const right = image.disk.subarray(offset, offset + blockBytes)
                if (kept) expect(at(offset).equals(right)).toBe(true)
              }
            }
          }
        }
        for (let offset = 0; offset < disk.length; offset += blockBytes) {
          if (!seen.has(offset)) expect(at(offset).every(byte => byte === 0)).toBe(true)
        }
        // Nothing that both share and nobody hides is given away.
        if (more === 1 && own === 1) expect(plan.stale).toEqual([])
      },
    ),
    { numRuns: 150 },
  )
})
