// What has been made, and how it is unmade: last first, all of it even if a step fails.

export class UndoStack {
  readonly #undos: (() => void)[] = [];

  add(undo: () => void): void {
    this.#undos.push(undo);
  }

  /** Once each. Throws what the first failing step has thrown, after the others. */
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

  /** The same after something else has failed, which is the news: what fails here is not. */
  abandon(): void {
    try {
      this.run();
    } catch {
      // All that could be undone has been.
    }
  }
}
