/** Where the parts of an image lie in its folder. */
export const imageFiles = {
  /** The raw disk, sparse. */
  disk: 'disk.raw',
  config: 'config.json',
  state: 'state.json',
  kernel: 'kernel',
  initrd: 'initrd',
  /** Firmware variables to start with. */
  nvram: 'nvram',
} as const

/** The file with the index of the layer at this place, the base's being 0 (layer-index.ts). */
export function layerFile(at: number): string {
  return `layer.${at}`
}

/** The file that says where a registry has the chunks of that layer, if we were told. */
export function locationsFile(at: number): string {
  return `locations.${at}`
}
