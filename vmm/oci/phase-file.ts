// What a container does, as its monitor writes it: memory that is a file, made before the monitor is sealed. Who owns that process then
// has no descriptor by which the file could grow.
import { closeSync, openSync, writeSync } from "node:fs";
import { mmapFile, viewMemory } from "../sys/memory.js";
import { PHASE_BYTES, type Container, type ContainerPhase } from "./state.js";

export class PhaseFile {
  readonly #text: Buffer;

  private constructor(text: Buffer) {
    this.#text = text;
  }

  /** From here on the program has not begun yet. Throws HostError for a folder that cannot be written to. */
  static make(container: Container): PhaseFile {
    return container.inWords(() => {
      const fd = openSync(container.phasePath, "w+", 0o600);
      try {
        // All of it is there: a disk that is full shows here.
        writeSync(fd, " ".repeat(PHASE_BYTES));
        return new PhaseFile(Buffer.from(viewMemory(mmapFile(fd, PHASE_BYTES), PHASE_BYTES)));
      } finally {
        closeSync(fd);
      }
    });
  }

  write(phase: ContainerPhase): void {
    this.#text.write(JSON.stringify(phase).padEnd(PHASE_BYTES), "latin1");
  }
}
