import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { MacfleetError } from '../base/errors.ts'
import type { Kind } from './kind.ts'
import { findKind, kinds } from './kinds.ts'
import { validate } from './validate.ts'

function kindNamed(word: string): Kind {
  const kind = findKind(word)
  if (kind === undefined) throw new Error(`no kind ${word}`)
  return kind
}

const machine = (spec: object, metadata: object = { name: 'a' }) => ({
  apiVersion: 'macfleet.dev/v1',
  kind: 'VirtualMachine',
  metadata,
  spec: { image: 'micro', ...spec },
})

function refusal(input: unknown): string {
  try {
    validate(kindNamed('vm'), input)
  } catch (error) {
    if (error instanceof MacfleetError && error.code === 'invalid') return error.message
    throw error
  }
  return ''
}

describe('validate', () => {
  test('fills in the defaults and leaves the input alone', () => {
    const input = machine({})
    expect(validate(kindNamed('vm'), input)).toMatchObject({
      spec: { cpu: 1, memory: '1Gi', powerState: 'Running', restartPolicy: 'OnFailure' },
    })
    expect(input.spec).toEqual({ image: 'micro' })
  })

  test.each([
    [machine({ cpuu: 2 }), 'spec.cpuu: unknown field; did you mean cpu?'],
    [
      machine({ ports: [{ guestPort: 22, hostprt: 1 }] }),
      'spec.ports[0].hostprt: unknown field; did you mean hostPort?',
    ],
    [machine({ powerState: 'On' }), 'spec.powerState: must be one of Running, Stopped, Suspended'],
    [machine({ cpu: 'many' }), 'spec.cpu: must be a quantity such as 2, 500m or 1Gi'],
    [machine({ memory: '1Ki' }), 'spec.memory: must be between 16Mi and 8Ti, not 1Ki'],
    [machine({ image: undefined }), 'spec.image'],
    [machine({ ttl: 'soon' }), 'spec.ttl: must be a duration'],
    [machine({ sshKeys: ['a\nb'] }), 'spec.sshKeys[0]'],
    [machine({}, { name: 'Capital' }), 'metadata.name'],
    [machine({}, { name: 'a', labels: { 'a b': 'c' } }), 'metadata.labels'],
    [{ ...machine({}), kind: 'Host' }, 'kind: must be VirtualMachine'],
    [
      JSON.parse(
        '{"__proto__": {"polluted": 1}, "apiVersion": "macfleet.dev/v1", "kind": "VirtualMachine"}',
      ),
      '__proto__: unknown field',
    ],
    [[], 'must be an object'],
    [null, 'must be an object'],
  ])('refuses %j', (input, sentence) => {
    expect(refusal(input)).toContain(sentence)
  })

  test('no input makes it throw anything but the refusal, or reach Object.prototype', () => {
    const field = fc.oneof(
      fc.constantFrom('spec', 'metadata', 'labels', 'ports', 'cpu'),
      fc.string(),
    )
    const tree = fc.letrec(tie => ({
      node: fc.oneof(
        { maxDepth: 4 },
        fc.jsonValue(),
        fc.dictionary(field, tie('node'), { maxKeys: 4 }),
        fc.array(tie('node'), { maxLength: 3 }),
      ),
    })).node
    fc.assert(
      fc.property(fc.constantFrom(...kinds), tree, tree, tree, (kind, spec, metadata, status) => {
        const apiVersion = kind.group === '' ? 'v1' : `${kind.group}/v1`
        for (const input of [spec, { apiVersion, kind: kind.kind, metadata, spec, status }]) {
          try {
            validate(kind, input)
          } catch (error) {
            expect(error).toMatchObject({ code: 'invalid' })
          }
        }
        expect(Object.keys(Object.prototype)).toEqual([])
      }),
      { numRuns: 300 },
    )
  })
})
