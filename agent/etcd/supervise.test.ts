import { describe, expect, test } from 'vitest'
import type { EtcdMember } from '../../cluster/etcd/admin.ts'
import { type SupervisorView, supervise } from './supervise.ts'

const peerUrl = 'https://10.0.0.1:7483'
const member = (rest: Partial<EtcdMember> = {}): EtcdMember => ({
  id: '1',
  name: 'h1',
  peerUrls: [peerUrl],
  clientUrls: [],
  isLearner: false,
  ...rest,
})
const other = member({ id: '2', name: 'h2', peerUrls: ['https://10.0.0.2:7483'] })
const identity = { memberId: '1', clusterId: 'c' }
const step = (view: Partial<SupervisorView>) =>
  supervise({
    peerUrl,
    hasData: true,
    runs: false,
    identity,
    members: [member(), other],
    clusterId: 'c',
    ...view,
  }).kind

describe('a host does about its member of etcd', () => {
  test('with data it starts, whether anybody answers or not', () => {
    expect(step({})).toBe('start')
    expect(step({ members: undefined })).toBe('start')
    expect(step({ members: undefined, identity: undefined })).toBe('start')
  })

  test('nothing without data as long as nobody answers, or the list does not name it', () => {
    const hasData = false
    expect(step({ hasData, identity: undefined, members: undefined })).toBe('none')
    expect(step({ hasData, identity: undefined, members: [other] })).toBe('none')
  })

  test('it begins as a member that never started, and only as that', () => {
    const view = { hasData: false, identity: undefined }
    expect(step({ ...view, members: [member({ name: '' }), other] })).toBe('begin')
    expect(step(view)).toBe('withdraw')
    expect(step({ ...view, runs: true })).toBe('withdraw')
    expect(step({ ...view, runs: true, members: [member()] })).toBe('warn')
  })

  test('it sets data aside that is of no member, of an earlier one, or of another cluster', () => {
    expect(step({ members: [other] })).toBe('retire')
    expect(step({ members: [other], hasData: false, runs: true })).toBe('retire')
    expect(step({ members: [member({ id: '3', name: '' }), other] })).toBe('retire')
    expect(step({ clusterId: 'd' })).toBe('retire')
    expect(step({ clusterId: 'd', members: undefined })).toBe('retire')
    expect(step({ clusterId: undefined, members: undefined })).toBe('start')
  })
})
