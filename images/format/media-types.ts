/**
 * How the parts of an image are called in a registry. The config has the type of OCI's own image
 * configs, because programs like `skopeo inspect` read no other; the artifact type says what it is.
 */
export const mediaTypes = {
  manifest: 'application/vnd.oci.image.manifest.v1+json',
  artifact: 'application/vnd.macfleet.image.v1',
  config: 'application/vnd.oci.image.config.v1+json',
  layer: 'application/vnd.macfleet.layer.v1',
  locations: 'application/vnd.macfleet.layer.locations.v1',
  pack: 'application/vnd.macfleet.pack.v1+zstd',
  kernel: 'application/vnd.macfleet.kernel.v1',
  initrd: 'application/vnd.macfleet.initrd.v1',
  nvram: 'application/vnd.macfleet.nvram.v1',
} as const

/** The annotation of a locations blob: the digest of the layer whose chunks it places. */
export const layerAnnotation = 'dev.macfleet.layer'
