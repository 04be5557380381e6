// Needs: nothing. The command of a guest that begins with a template, as a program asks for it.
import assert from "node:assert/strict";
import { ConfigError } from "../../vmm/errors.js";
import { commandBlock, type GuestCommand } from "../../vmm/snapshot/guest-command.js";

describe("guest-command", () => {
  it("becomes bytes, with an identity that no other has", () => {
    const given = { command: ["echo", "a b", ""], env: { A: "1=2", B: "" }, folder: "/tmp", hostName: "one" };
    const block = commandBlock(given);
    const text = (list: readonly Uint8Array[] | undefined): string[] => (list ?? []).map((word) => String(word));
    assert.deepEqual(text(block.command), given.command);
    assert.deepEqual(text(block.variables), ["A=1=2", "B="]);
    assert.deepEqual([String(block.folder), block.hostName, block.seed.length], ["/tmp", "one", 32]);
    const other = commandBlock(given);
    assert.notEqual(other.generation, block.generation);
    assert.notDeepEqual(other.seed, block.seed);
    assert.ok(block.generation > 0 && Math.abs(Number(block.wallClock / 1_000_000n) - Date.now()) < 10_000);
  });

  it("names everything that cannot be, at once", () => {
    const wrong: readonly [given: unknown, ...problems: RegExp[]][] = [
      [undefined, /undefined is not an object with a command/],
      [{ command: [] }, /is not a list that names a program/],
      [{ command: "ls" }, /"ls" is not a list/],
      [{ command: ["ls", 5] }, /5 is not a text without NUL/],
      [{ command: ["ls", "a\0b"] }, /is not a text without NUL/],
      [{ command: ["ls"], env: { "A=B": "1" } }, /no variable "A=B"/],
      [{ command: ["ls"], env: { "": "1" } }, /no variable ""/],
      [{ command: ["ls"], env: { A: 1 } }, /env\.A 1 is not a text/],
      [{ command: ["ls"], env: [] }, /is not an object/],
      [{ command: ["ls"], folder: "tmp" }, /"tmp" is not an absolute path/],
      [{ command: ["ls"], hostName: "a_b" }, /"a_b" is not a name/],
      [{ command: ["ls"], hostName: "x".repeat(65) }, /is not a name of 1 to 64/],
      [{ command: [""], cwd: "/" }, /unknown option "cwd"/, /names a program/],
    ];
    for (const [given, ...problems] of wrong) {
      assert.throws(
        () => commandBlock(given as GuestCommand),
        (error) => error instanceof ConfigError && problems.every((problem) => problem.test(error.message)),
        JSON.stringify(given),
      );
    }
    assert.equal(commandBlock({ command: ["ls"], hostName: `a${"b".repeat(62)}c` }).hostName?.length, 64);
  });
});
