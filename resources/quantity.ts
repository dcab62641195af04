import Type from 'typebox'

/** A Kubernetes quantity as users write it: `2`, `0.5`, `500m`, `512Mi`, `2Gi`, `1e3`. */
export type Quantity = string | number

const powers: Record<string, number> = {
  n: 1e-9,
  u: 1e-6,
  m: 1e-3,
  '': 1,
  k: 1e3,
  M: 1e6,
  G: 1e9,
  T: 1e12,
  P: 1e15,
  E: 1e18,
  Ki: 2 ** 10,
  Mi: 2 ** 20,
  Gi: 2 ** 30,
  Ti: 2 ** 40,
  Pi: 2 ** 50,
  Ei: 2 ** 60,
}

const pattern =
  /^[+-]?(\d{1,18}(\.\d{0,18})?|\.\d{1,18})(([KMGTPE]i)|[numkMGTPE]|[eE][+-]?\d{1,2})?$/

/**
 * The number behind a quantity: bytes, cores or a plain count, by its use. Undefined when it is
 * none. Grammar: kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity
 */
export function parseQuantity(quantity: Quantity): number | undefined {
  if (typeof quantity === 'number') return Number.isFinite(quantity) ? quantity : undefined
  const match = pattern.exec(quantity)
  if (match === null) return undefined
  const suffix = match[3] ?? ''
  const digits = Number(suffix === '' ? quantity : quantity.slice(0, -suffix.length))
  const power = powers[suffix] ?? 10 ** Number(suffix.slice(1))
  const value = digits * power
  // 0.1 * 1e3 must be 100 and not 100.00000000000001: doubles are exact to 15 digits.
  return Number.isInteger(value) ? value : Number(value.toPrecision(15))
}

/** The number behind a quantity that has been validated already. */
export function quantityValue(quantity: Quantity): number {
  const value = parseQuantity(quantity)
  if (value === undefined) throw new Error(`not a quantity: ${quantity}`)
  return value
}

/** Bytes as people write them: the largest binary unit that leaves a whole number, `1536Mi`. */
export function formatBytes(bytes: number): string {
  for (const unit of ['Ti', 'Gi', 'Mi', 'Ki']) {
    const power = powers[unit] ?? 1
    if (bytes !== 0 && bytes % power === 0) return `${bytes / power}${unit}`
  }
  return String(bytes)
}

/** Bytes for a table cell: one decimal of the largest binary unit, `1.5Gi`. */
export function approximateBytes(bytes: number): string {
  for (const unit of ['Ti', 'Gi', 'Mi', 'Ki']) {
    const power = powers[unit] ?? 1
    if (bytes >= power) return `${Number((bytes / power).toFixed(1))}${unit}`
  }
  return String(bytes)
}

/** The schema of a quantity field. */
export function quantitySchema(description: string, fallback?: string | number) {
  return Type.Union(
    [Type.Number({ minimum: 0 }), Type.String({ maxLength: 40, pattern: pattern.source })],
    {
      description,
      'x-kubernetes-int-or-string': true,
      ...(fallback === undefined ? {} : { default: fallback }),
    },
  )
}
