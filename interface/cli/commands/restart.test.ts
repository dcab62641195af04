import { expect, test } from 'vitest'
import { restartedAtAnnotation } from '../../../resources/virtual-machine.ts'
import { restartedAt } from './restart.ts'

test('a restart is asked for by the annotation that the daemon watches', () => {
  expect(restartedAt).toBe(restartedAtAnnotation)
})
