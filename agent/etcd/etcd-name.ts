/** The guardian's name for etcd; machines are named by their uid, so it is never one of theirs. */
export const etcdProcessName = 'etcd'
