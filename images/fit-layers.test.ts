import { expect, test } from 'vitest'
import { isFailure } from '../base/errors.ts'
import { defaultLimits } from '../base/limits.ts'
import { randomImage } from '../test/support/random-layers.ts'
import { describeLayer } from './describe-layer.ts'
import { fitLayers } from './fit-layers.ts'
import type { ImageConfig } from './image-record.ts'
import { blockBytes, decodeLayerIndex, encodeLayerIndex } from './layer-index.ts'

const image = randomImage({ seed: 8, layerCount: 2, diskBlocks: 64 })
const { config, encoded } = image

const codeOf = (
  changed: Partial<ImageConfig>,
  given: readonly Uint8Array[] = encoded,
  bounds = defaultLimits,
): string => {
  try {
    fitLayers({ ...config, ...changed }, given, bounds)
    return 'accepted'
  } catch (error) {
    if (isFailure(error, 'imageConfigInvalid') || isFailure(error, 'layerIndexInvalid')) {
      return error.code
    }
    throw error
  }
}

test('layers that are those of the config are accepted, and no others', () => {
  const [base, upper] = config.layers
  const [baseBytes = Buffer.alloc(0), upperBytes = Buffer.alloc(0)] = encoded
  if (!base || !upper) throw new Error('there are two layers')
  const misfit = 'imageConfigInvalid'
  expect(codeOf({})).toBe('accepted')
  expect(codeOf({}, [baseBytes])).toBe(misfit)
  expect(codeOf({}, [baseBytes, upperBytes, upperBytes])).toBe(misfit)
  expect(codeOf({}, [upperBytes, baseBytes])).toBe(misfit)
  expect(codeOf({}, [baseBytes, Buffer.alloc(100)])).toBe('layerIndexInvalid')
  const lie = (fields: Partial<typeof upper>) => ({ layers: [base, { ...upper, ...fields }] })
  expect(codeOf(lie({ dataBytes: upper.dataBytes + 4096 }))).toBe(misfit)
  expect(codeOf(lie({ chunkCount: 0 }))).toBe(misfit)
  expect(codeOf(lie({ extentCount: 1 }))).toBe(misfit)
  expect(codeOf(lie({ digest: base.digest }))).toBe(misfit)
  for (const more of [-blockBytes, blockBytes]) {
    expect(codeOf({ virtualSizeBytes: config.virtualSizeBytes + more })).toBe(misfit)
  }
  // Each within the bound, both together not.
  const zeros = encoded.map(bytes => decodeLayerIndex(bytes, defaultLimits).zeros.length)
  const [baseZeros = 0, upperZeros = 0] = zeros
  const extentCount = base.extentCount + upper.extentCount + baseZeros + upperZeros
  const layerChunks = extentCount - 1
  const bounds = { ...defaultLimits, layerChunks }
  expect(codeOf({}, encoded, bounds)).toBe('layerIndexInvalid')
  expect(codeOf({}, encoded, { ...bounds, layerChunks: layerChunks + 1 })).toBe('accepted')
})

test('a first layer with zeros, and a layer smaller than the one below, are refused', () => {
  const { virtualSizeBytes } = config
  const zeros = [{ offsetBytes: 0, lengthBytes: blockBytes }]
  const zeroing = encodeLayerIndex({ virtualSizeBytes, chunks: [], zeros })
  const described = describeLayer(zeroing, defaultLimits).layer
  expect(codeOf({ layers: [described] }, [zeroing])).toBe('imageConfigInvalid')
  const [base] = config.layers
  const [baseBytes] = encoded
  const smaller = encodeLayerIndex({ virtualSizeBytes: blockBytes, chunks: [], zeros })
  const { layer } = describeLayer(smaller, defaultLimits)
  if (!base || !baseBytes) throw new Error('there is a layer')
  const changed = { layers: [base, layer], virtualSizeBytes: blockBytes }
  expect(codeOf(changed, [baseBytes, smaller])).toBe('imageConfigInvalid')
})
