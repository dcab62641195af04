import { join } from 'node:path'
import type * as Grpc from '@grpc/grpc-js'
import type { MethodDefinition } from '@grpc/proto-loader'
import { assert } from '../../base/errors.ts'
import type { Method, Methods } from './messages.ts'

/** How one method goes over the wire. */
export interface Wire<Name extends Method> {
  /** The path of HTTP/2 requests. */
  path: string
  encode(request: Methods[Name][0]): Buffer
  decode(bytes: Buffer): Methods[Name][1]
}

/** The gRPC library and etcd's methods. */
export interface Rpc {
  grpc: typeof Grpc
  wire<Name extends Method>(method: Name): Wire<Name>
}

let loading: Promise<Rpc> | undefined

/** Loads what only a fleet needs; a single host never calls it, and pays nothing. */
export function loadRpc(): Promise<Rpc> {
  loading ??= load()
  return loading
}

async function load(): Promise<Rpc> {
  const [grpc, loader] = await Promise.all([import('@grpc/grpc-js'), import('@grpc/proto-loader')])
  const services = loader.loadSync(join(import.meta.dirname, 'etcd.proto'), {
    longs: String,
    enums: Number,
    defaults: true,
  })
  const methodOf = (method: Method): MethodDefinition<object, object> => {
    const [service, name = ''] = method.split('.')
    const definition = services[`etcdserverpb.${service}`]
    assert(definition !== undefined && !('format' in definition), `${service} is a service`)
    const found = Reflect.get(definition, name)
    assert(found !== undefined, `etcd.proto has ${method}`)
    return found
  }
  return {
    grpc,
    wire<Name extends Method>(method: Name): Wire<Name> {
      const { path, requestSerialize, responseDeserialize } = methodOf(method)
      return {
        path,
        encode: requestSerialize as Wire<Name>['encode'],
        decode: responseDeserialize as Wire<Name>['decode'],
      }
    },
  }
}
