import { failure } from '../../base/errors.ts'

/**
 * The JSON values of a stream that holds one per line, such as a watch (Kubernetes API concepts).
 * @param limitBytes of one line; a longer one is refused
 * @throws answerInvalid
 */
export async function* readJsonLines(
  stream: AsyncIterable<Buffer | string>,
  limitBytes: number,
  request: string,
): AsyncGenerator<unknown> {
  const decoder = new TextDecoder()
  let rest = ''
  for await (const chunk of stream) {
    rest += typeof chunk === 'string' ? chunk : decoder.decode(chunk, { stream: true })
    for (let end = rest.indexOf('\n'); end >= 0; end = rest.indexOf('\n')) {
      const line = rest.slice(0, end).trim()
      rest = rest.slice(end + 1)
      if (line !== '') yield parseLine(line, request)
    }
    if (rest.length > limitBytes) {
      throw failure('answerInvalid', {
        request,
        detail: `a line has more than ${limitBytes} bytes`,
      })
    }
  }
  // A line without an end was cut off: what it says is not known.
}

function parseLine(line: string, request: string): unknown {
  try {
    return JSON.parse(line)
  } catch {
    throw failure('answerInvalid', { request, detail: 'a line is no JSON' })
  }
}
