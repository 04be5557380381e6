// Needs: nothing.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { argumentBytes, refuseOtherThanUtf8 } from "../../vmm/cli/argument-bytes.js";
import { UsageError } from "../../vmm/cli/usage-error.js";
import { encodeExec } from "../../vmm/agent/exec-request.js";
import { checkCmdline } from "../../vmm/x86/cmdline.js";

/** A process's arguments as the kernel has them, and as Node does. */
function started(...words: Buffer[]) {
  const cmdline = Buffer.concat([Buffer.from("node\0vmlet\0"), ...words.flatMap((word) => [word, Buffer.alloc(1)])]);
  return { argv: words.map((word) => word.toString("utf8")), cmdline: () => cmdline };
}

describe("argument bytes", () => {
  const raw = Buffer.from([0xff, 0xfe, 0x20, 0x80]);

  it("a command's words are their bytes, whatever these are", () => {
    const words = ["boot", "--", "printf", ""]
      .map((word) => Buffer.from(word))
      .concat([raw, Buffer.from("\ufffd"), raw]);
    const { argv, cmdline } = started(...words);
    assert.deepEqual(argumentBytes(argv.slice(2), cmdline), words.slice(2));
    const plain = () => assert.fail("not looked at without need");
    assert.deepEqual(argumentBytes(["a", "ä"], plain), [Buffer.from("a"), Buffer.from("ä")]);
  });

  it("an option that is not UTF-8 is refused by its bytes, one that has U+FFFD itself is not", () => {
    const bad = started(
      Buffer.from("boot"),
      Buffer.from("-i"),
      Buffer.from([0x64, 0xe9, 0x2e]),
      Buffer.from("--"),
      raw,
    );
    assert.throws(
      () => refuseOtherThanUtf8(bad.argv, bad.cmdline),
      new UsageError("d\\xe9.: not UTF-8; only the words after -- may be any bytes"),
    );
    const good = started(Buffer.from("boot"), Buffer.from("-i"), Buffer.from("\ufffd"), Buffer.from("--"), raw);
    refuseOtherThanUtf8(good.argv, good.cmdline);
  });

  it("without the kernel's word, bytes are refused and not guessed", () => {
    assert.throws(() => argumentBytes(["\ufffd"], () => Buffer.alloc(0)), UsageError);
    assert.throws(() => argumentBytes(["\ufffd"], () => Buffer.from("something else\0")), UsageError);
  });

  it("the program says it of its own arguments", () => {
    const { status, stderr } = spawnSync("sh", [
      "-c",
      `"$0" build/vmm/cli.js boot --initrd $(printf 'd\\351.cpio')`,
      process.execPath,
    ]);
    assert.deepEqual(
      [status, stderr.toString()],
      [64, "vmlet: d\\xe9.cpio: not UTF-8; only the words after -- may be any bytes\n"],
    );
  });

  it("the agent of the lab gets the bytes, and no more of them than it takes", () => {
    const options = { env: ["B=c"], cleanEnv: true, cwd: "/" };
    const payload = encodeExec(["a", raw], options);
    assert.ok(payload.toString("latin1").endsWith(`/\0\0a\0${raw.toString("latin1")}\0B=c\0`));
    assert.throws(() => encodeExec(["x".repeat(2 ** 16)], options), {
      code: "ERR_CONFIG",
      message: /the limit is 65536/,
    });
  });

  it("a command that is too long is named, with its share and the limit", () => {
    assert.throws(() => checkCmdline(`quiet vmlet.exec=${"x".repeat(3000)} -- init`), {
      code: "ERR_CONFIG",
      message: /has 3025 bytes, the limit is 2047; the command of "--" takes 3011 of them/,
    });
  });
});
