/** Token ids that are still becoming more. */
export class IdList {
  #ids = new Int32Array(256)
  length = 0

  push(id: number): void {
    if (this.length === this.#ids.length) this.#grow(1)
    this.#ids[this.length++] = id
  }

  pushAll(ids: ArrayLike<number>): void {
    if (this.length + ids.length > this.#ids.length) this.#grow(ids.length)
    // A loop is faster than set() for the few ids of a word.
    for (let i = 0; i < ids.length; i++) this.#ids[this.length++] = ids[i] as number
  }

  at(index: number): number {
    return this.#ids[index] as number
  }

  /** A copy of ids[start, end). */
  slice(start = 0, end = this.length): Int32Array {
    return this.#ids.slice(start, Math.min(end, this.length))
  }

  #grow(more: number): void {
    const larger = new Int32Array(2 * this.#ids.length + more)
    larger.set(this.#ids.subarray(0, this.length))
    this.#ids = larger
  }
}
