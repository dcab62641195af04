import type { FastifyInstance } from 'fastify'
import { apiVersionOf, type Kind } from '../../resources/kind.ts'
import { kinds } from '../../resources/kinds.ts'
import type { ApiContext } from './context.ts'
import { groupPath } from './resource-routes.ts'
import { serve } from './routes.ts'

/**
 * The Kubernetes release whose API this follows: kubectl compares it with its own and warns when
 * they are far apart.
 */
const kubernetes = { major: '1', minor: '32' }

/** Tells clients what there is (Kubernetes API concepts, "API groups"), in its plain form. */
export function discoveryRoutes(app: FastifyInstance, context: ApiContext): void {
  const groups = [...new Set(kinds.filter(kind => kind.group !== '').map(kind => kind.group))]
  const answers: Record<string, object> = {
    '/version': versionInfo(context.version),
    '/api': { kind: 'APIVersions', versions: ['v1'], serverAddressByClientCIDRs: [] },
    '/apis': { kind: 'APIGroupList', apiVersion: 'v1', groups: groups.map(groupInfo) },
  }
  for (const group of groups) {
    answers[`/apis/${group}`] = { kind: 'APIGroup', apiVersion: 'v1', ...groupInfo(group) }
  }
  for (const path of new Set(kinds.map(groupPath))) answers[path] = resourceList(path)
  for (const [path, answer] of Object.entries(answers)) {
    serve(app, path, { GET: async () => answer })
  }
}

function versionInfo(version: string) {
  return {
    ...kubernetes,
    gitVersion: `v${kubernetes.major}.${kubernetes.minor}.0+macfleet-${version}`,
    gitCommit: '',
    gitTreeState: '',
    buildDate: '',
    goVersion: '',
    compiler: `node ${process.version}`,
    platform: `${process.platform}/${process.arch}`,
    macfleetVersion: version,
  }
}

function groupInfo(group: string) {
  const versions = new Set(kinds.filter(kind => kind.group === group).map(kind => kind.version))
  const infos = [...versions].map(version => ({ groupVersion: `${group}/${version}`, version }))
  return { name: group, versions: infos, preferredVersion: infos[0] }
}

function resourceList(path: string) {
  const served = kinds.filter(kind => groupPath(kind) === path)
  const groupVersion = served[0] === undefined ? '' : apiVersionOf(served[0])
  const resources = served.flatMap(resourceInfos)
  return { kind: 'APIResourceList', apiVersion: 'v1', groupVersion, resources }
}

const subresourceVerbs: Record<string, Record<string, string[]>> = {
  VirtualMachine: { console: ['get'], exec: ['get'], log: ['get'] },
  Image: {
    content: ['update'],
    kernel: ['update'],
    initrd: ['update'],
    verify: ['create'],
    inspect: ['get'],
  },
}

function resourceInfos(kind: Kind) {
  const status = kind.hasStatus ? { status: ['get', 'patch', 'update'] } : {}
  const subresources = { ...status, ...subresourceVerbs[kind.kind] }
  const own = {
    name: kind.plural,
    singularName: kind.singular,
    namespaced: kind.namespaced,
    kind: kind.kind,
    verbs: ['create', 'delete', 'get', 'list', 'patch', 'update', 'watch'],
    shortNames: kind.shortNames,
  }
  const below = Object.entries(subresources).map(([name, verbs]) => ({
    name: `${kind.plural}/${name}`,
    singularName: '',
    namespaced: kind.namespaced,
    kind: kind.kind,
    verbs,
  }))
  return [own, ...below]
}
