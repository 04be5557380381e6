// Needs: gcc. How the guest's init runs a command, and what it says of one that cannot be run.
import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { chmodSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

describe("guest: init runs a command", function () {
  this.timeout(30_000);
  let folder = "";
  let init = "";

  before(() => {
    folder = mkdtempSync(join(tmpdir(), "vmlet-test-"));
    init = at("init");
    const flags = "-std=gnu11 -Os -Wall -Wextra -Werror -ffreestanding -fno-stack-protector -fno-pie -nostdlib -static";
    execFileSync("gcc", [...flags.split(" "), "-no-pie", "-o", init, "test/programs/execute.c"]);
    write("no-loader.c", "int main(void) { return 5; }\n");
    execFileSync("gcc", ["-o", at("no-loader"), "-Wl,--dynamic-linker=/no/such/ld.so", at("no-loader.c")]);
    execFileSync("gcc", ["-static", "-o", at("program"), at("no-loader.c")]);
  });
  after(() => {
    rmSync(folder, { recursive: true, force: true });
  });

  function at(name: string): string {
    return join(folder, name);
  }

  function write(name: string, content: string | Uint8Array, mode = 0o755): string {
    writeFileSync(at(name), content);
    chmodSync(at(name), mode);
    return at(name);
  }

  function run(...command: (string | Buffer)[]): { status: number | null; stdout: Buffer; stderr: string } {
    const { status, stdout, stderr } = spawnSync(init, command as string[]);
    return { status, stdout, stderr: stderr.toString("latin1").replaceAll(`${folder}/`, "") };
  }

  it("a program by its path and along PATH, with its arguments as they are", () => {
    assert.equal(run(at("program")).status, 5);
    const words = ["%s|", "", "a b", "-x", "\u00ff", "", "z".repeat(100_000)];
    assert.equal(run("printf", ...words).stdout.toString(), `${words.slice(1).join("|")}|`);
    assert.equal(run("sh", "-c", "kill -9 $$").status, null);
  });

  it("a text without #! is run by the shell, as by a shell", () => {
    const script = write("script", 'echo "$0" "$@"; exit 9\n');
    const { status, stdout } = run(script, "a b", "");
    assert.deepEqual([status, stdout.toString()], [9, `${script} a b \n`]);
  });

  for (const [title, make, status, reason] of [
    ["a name that is nowhere", () => "no-such-command-here", 127, "not found"],
    ["a path that is nowhere", () => "/no/such", 127, "not found"],
    ["an empty name", () => "", 127, "not found"],
    [
      "a dynamic program without its loader",
      () => at("no-loader"),
      127,
      "it is a dynamic program, and its loader /no/such/ld.so is not there",
    ],
    [
      "a script without its interpreter",
      () => write("bad-script", "#! /no/such/shell -e\necho\n"),
      126,
      "its interpreter /no/such/shell is not there",
    ],
    ["a folder", () => (mkdirSync(at("dir"), { recursive: true }), at("dir")), 126, "is a directory"],
    [
      "a file below a file",
      () => join(write("text", "x\n", 0o644), "below"),
      126,
      "a part of its path is not a directory",
    ],
    ["a file without the right to run", () => write("plain", "#!/bin/sh\n", 0o644), 126, "permission denied"],
    [
      "a program for another machine",
      () => write("binary", Uint8Array.of(0x7f, 0x45, 0x4c, 0x46, 1, 0, 0, 0)),
      126,
      "not a program for this machine (exec format error)",
    ],
    ["a link to itself", () => (symlinkSync("loop", at("loop")), at("loop")), 126, "too many symbolic links"],
  ] as const) {
    it(`${title}: the true reason, and ${String(status)}`, () => {
      const path = make();
      const result = run(path);
      const name = path.replaceAll(`${folder}/`, "");
      assert.deepEqual([result.status, result.stderr], [status, `init: cannot run ${name}: ${reason}\n`]);
    });
  }
});
