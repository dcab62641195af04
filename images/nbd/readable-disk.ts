/** A disk that can be read, though parts of it may have to be brought first. */
export interface ReadableDisk {
  readonly sizeBytes: number
  /**
   * Bytes of the disk, exactly as many as asked for, verified. May wait for them to come; several
   * reads may be under way at once.
   * @param offsetBytes within the disk, as is the end
   * @param signal aborted when nobody waits for the answer any more: it then rejects soon
   * @throws what stands in the way; whoever asked is told of an I/O error
   */
  read(offsetBytes: number, lengthBytes: number, signal: AbortSignal): Promise<Buffer>
  /**
   * What is not zeros of a range, in order and without overlap, as far as the image says so
   * without any of it being brought: for those who skip holes. Absent: all may be data.
   */
  dataExtents?(offsetBytes: number, lengthBytes: number): DataExtent[]
}

/** A range of a disk that may hold something else than zeros. */
export interface DataExtent {
  offsetBytes: number
  lengthBytes: number
}
