/** Measures the columns that a text takes on a terminal. */
export type Width = (text: string) => number

// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
const controls = /[\u0000-\u001f\u007f-\u009f]+/g
const plain = /^[\x20-\x7e]*$/

/**
 * The text on one line and without control characters: names, messages and addresses may come from
 * a guest, and must not move the cursor or retitle the window of whoever reads them.
 */
export function printable(text: string): string {
  return plain.test(text) ? text : text.replace(controls, ' ').trimEnd()
}

/**
 * How wide texts are. Plain ASCII, which nearly every table is, needs no knowledge of Unicode: the
 * module that has it is loaded when it is needed only.
 */
export async function loadWidth(texts: Iterable<string>): Promise<Width> {
  for (const text of texts) {
    if (!plain.test(text)) return (await import('string-width')).default
  }
  return text => text.length
}

/** The text with spaces up to `columns`. */
export function padTo(text: string, columns: number, width: Width): string {
  return text + ' '.repeat(Math.max(0, columns - width(text)))
}

/** A text cut to `columns` characters, with an ellipsis where something was cut. */
export function shorten(text: string, columns: number): string {
  return text.length <= columns ? text : `${text.slice(0, Math.max(0, columns - 1))}…`
}

/** `1 image`, `2 images`. */
export function count(amount: number, noun: string): string {
  return `${amount} ${noun}${amount === 1 ? '' : 's'}`
}
