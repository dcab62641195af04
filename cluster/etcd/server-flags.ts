/**
 * What etcd must be started with so that the store can rely on it, besides names, addresses,
 * certificates and folders. Known to etcd 3.4 to 3.6.
 */
export const etcdServerFlags: readonly string[] = [
  '--heartbeat-interval=100',
  '--election-timeout=1000',
  '--pre-vote=true',
  // A transaction of ours has up to limits.transactionBytes of keys and values; etcd counts its own
  // framing too, and the keys of compares a second time for the entries of a failed one.
  '--max-request-bytes=2097152',
  '--max-txn-ops=128',
  // We ask a silent connection for a sign of life each second; etcd's default takes that for abuse.
  '--grpc-keepalive-min-time=500ms',
]
