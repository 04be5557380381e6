// Needs: nothing. What is kept of a program, and when it is given up or made anew.
import assert from "node:assert/strict";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ProgramTemplate } from "../../vmm/snapshot/program-template.js";
import { programsPath } from "../../vmm/snapshot/template.js";

describe("snapshot: the template of a program", () => {
  it("that is refused twice in a row goes, and is made anew when its program comes again", () => {
    const folder = mkdtempSync(join(tmpdir(), "vmlet-program-"));
    try {
      const path = join(folder, "template");
      mkdirSync(path);
      const program = new ProgramTemplate(path, { command: [Buffer.from("true")], variables: [] });
      assert.equal(program.isKnown(), false);
      assert.equal(program.isKnown(), true);
      const [name = ""] = readdirSync(programsPath(path));
      const state = join(programsPath(path), name, "state.json");
      writeFileSync(state, "");
      for (const end of [
        (): void => {
          program.refused();
        },
        (): void => {
          program.accepted();
        },
        (): void => {
          program.refused();
        },
      ]) {
        end();
        assert.ok(existsSync(state));
      }
      program.refused();
      assert.ok(!existsSync(state));
      assert.equal(program.isKnown(), true);
      program.refused();
      assert.equal(program.isGivenUp, false);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});
