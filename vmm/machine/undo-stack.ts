// How to remove what has been made: last first, all of it even if a step fails.

export class UndoStack {
  readonly #undos: (() => void)[] = [];

  add(undo: () => void): void {
    this.#undos.push(undo);
  }

  /** Each step runs once. Throws the error of the first failing step, after all others have run. */
  run(): void {
    const failures: unknown[] = [];
    for (let undo = this.#undos.pop(); undo !== undefined; undo = this.#undos.pop()) {
      try {
        undo();
      } catch (error) {
        failures.push(error);
      }
    }
    if (failures.length > 0) throw failures[0];
  }

  /** The same after something else has failed: errors here are dropped, because that failure matters more. */
  abandon(): void {
    try {
      this.run();
    } catch {
      // All that could be undone has been.
    }
  }
}
