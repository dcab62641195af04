import { Value } from 'typebox/value'
import { failure, type MacfleetError } from '../base/errors.ts'
import { encodeConfig } from './encode-config.ts'
import { type ImageConfig, imageConfigSchema } from './image-record.ts'
import { blockBytes } from './layer-index.ts'

/**
 * Reads a config that anybody may have written.
 * @throws imageConfigInvalid for anything but the one spelling of a config
 */
export function decodeConfig(bytes: Uint8Array): ImageConfig {
  const text = Buffer.from(bytes).toString('utf8')
  const { architecture: _, os: _os, rootfs: _rootfs, ...config } = parseObject(text)
  if (!Value.Check(imageConfigSchema, config)) {
    const [error] = Value.Errors(imageConfigSchema, config)
    throw invalid(`${error?.instancePath ?? ''} ${error?.message ?? 'is wrong'}`.trim())
  }
  if (config.virtualSizeBytes % blockBytes !== 0) throw invalid('its disk is not whole blocks')
  if (encodeConfig(config) !== text) throw invalid('it is spelled in another way than it should be')
  return config
}

function parseObject(text: string): Record<string, unknown> {
  try {
    return { ...JSON.parse(text) }
  } catch {
    throw invalid('it is not JSON')
  }
}

function invalid(detail: string): MacfleetError {
  return failure('imageConfigInvalid', { detail })
}
