/** What a thread that does a task says. */
export type FromTask =
  | { type: 'question'; question: unknown }
  | { type: 'progress'; doneBytes: number }
  | { type: 'done'; result: unknown }
  | { type: 'failed'; code: string; values: Record<string, string | number>; message: string }

/** What it is told. */
export interface ToTask {
  answer: unknown
}
