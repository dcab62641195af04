import { once } from 'node:events'
import { parentPort, workerData } from 'node:worker_threads'
import { assert, MacfleetError, messageOf } from '../base/errors.ts'
import type { FromTask, ToTask } from './task-messages.ts'

/** What a task in a thread of its own can ask of whoever began it, and tell. */
export interface TaskLine<Question, Answer> {
  /** One question at a time. Does not return when the answer is a failure: the thread is ended. */
  ask(question: Question): Promise<Answer>
  tell(doneBytes: number): void
}

/** Does the task that this thread was started for (task-thread.ts). */
export async function doTask<Task, Question, Answer>(
  work: (task: Task, line: TaskLine<Question, Answer>) => Promise<unknown>,
): Promise<void> {
  assert(parentPort, 'this file runs as a worker thread')
  const port = parentPort
  const send = (message: FromTask) => port.postMessage(message)
  const line: TaskLine<Question, Answer> = {
    async ask(question) {
      send({ type: 'question', question })
      const [message]: ToTask[] = await once(port, 'message')
      return message?.answer as Answer
    },
    tell: doneBytes => send({ type: 'progress', doneBytes }),
  }
  try {
    send({ type: 'done', result: await work(workerData, line) })
  } catch (error) {
    const isNamed = error instanceof MacfleetError
    const system = error instanceof Error && 'code' in error ? String(error.code) : ''
    const values = isNamed ? { ...error.values } : {}
    send({ type: 'failed', code: isNamed ? error.code : system, values, message: messageOf(error) })
  }
}
