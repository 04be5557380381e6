// Needs: a /dev/kvm of any kind that boots a guest. A command's bytes, and the world that it finds.
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { timeLimit } from "../../vmm/host/time-limit.js";
import { countBoot } from "../helpers/booted.js";
import { whyNoKvm } from "../helpers/kvm-guard.js";
import { PROGRAM } from "../helpers/program.js";
import { skip } from "../helpers/skip.js";

const BOOT_LIMIT_MS = 400_000;

interface Ended {
  readonly status: number | null;
  readonly stdout: Buffer;
  readonly stderr: Buffer;
}

/** `input` is all of standard input; `isEndless`: and then zeroes, for as long as anybody takes them. */
async function boot(args: string[], input: Uint8Array, isEndless = false): Promise<Ended> {
  const child = spawn(PROGRAM, ["boot", "--quiet", ...args], { timeout: timeLimit("a boot", BOOT_LIMIT_MS) });
  const output: Buffer[] = [];
  const errors: Buffer[] = [];
  child.stdout.on("data", (bytes: Buffer) => output.push(bytes));
  child.stderr.on("data", (bytes: Buffer) => errors.push(bytes));
  // The end of the program is the end of its input.
  child.stdin.on("error", () => undefined);
  child.stdin.write(input);
  const more = (): void => {
    while (child.stdin.writable && child.stdin.write(new Uint8Array(65_536)));
  };
  if (isEndless) child.stdin.on("drain", more);
  else child.stdin.end();
  const status = await new Promise<number | null>((done) => child.once("close", done));
  countBoot();
  return { status, stdout: Buffer.concat(output), stderr: Buffer.concat(errors) };
}

describe("boot: a command without a terminal", function () {
  this.timeout(BOOT_LIMIT_MS + 10_000);
  let folder = "";

  before(function () {
    const reason = whyNoKvm();
    if (reason !== undefined) skip(this, reason);
    folder = mkdtempSync(join(tmpdir(), "vmlet-test-"));
  });
  after(() => {
    if (folder !== "") rmSync(folder, { recursive: true });
  });

  it("more bytes than any buffer holds go in and come out as they are, by both outputs apart; it finds what a container has; its end waits for no child and no end of its input; words of -- are another's", async () => {
    const bytes = Buffer.concat([Buffer.from(Array.from({ length: 256 }, (_, i) => i)), randomBytes(299_744)]);
    const expected: readonly [script: string, output: string][] = [
      ["dd bs=4 count=1 iflag=fullblock 2>/dev/null | od -An -tx1", "61 00 04 ff"],
      ["tty", "not a tty"],
      ["cat /proc/cmdline | sed 's/.* own/own/'", "own=1 -- one two"],
      ["tr '\\0' ' ' </proc/1/cmdline", "/init one two"],
      [
        "cd /dev; ls -d null zero full random urandom tty console ptmx pts shm mqueue fd stdin stdout stderr | wc -l",
        "15",
      ],
      ["echo err >/dev/stderr; echo out >/dev/stdout; head -c 0 /dev/stdin", "out"],
      ["echo x >/dev/shm/x; cat /dev/shm/x; stat -c %a /dev/shm /tmp | tr '\\n' ' '", "x\n1777 1777"],
      ["hostname; cat /etc/hostname; echo $HOSTNAME", "vmlet\nvmlet\nvmlet"],
      ["ping -c 1 localhost | grep -c ttl=", "1"],
      ["ulimit -n; ulimit -Hn", "1024\n524288"],
      ["kill -USR2 0 2>/dev/null; :", ""],
    ];
    const script = expected.map(([line]) => `(trap : USR2; ${line}); echo; echo =`).join("\n");
    const copy = `dd bs=10000 count=${String(bytes.length / 10_000)} iflag=fullblock 2>/dev/null | tee /dev/stderr`;
    const { status, stdout, stderr } = await boot(
      [
        "-c",
        "own=1 -- one two",
        "--",
        "sh",
        "-c",
        `trap : USR2\n${copy}\n${script}\nyes >/dev/null & sleep 1000 & exit 7`,
      ],
      Buffer.concat([bytes, Buffer.from([0x61, 0, 4, 0xff])]),
      true,
    );
    assert.ok(stdout.subarray(0, bytes.length).equals(bytes), stderr.toString("latin1", bytes.length));
    assert.ok(stderr.subarray(0, bytes.length).equals(bytes), "standard error is exact, too");
    const found = stdout
      .subarray(bytes.length)
      .toString("latin1")
      .split("\n=\n")
      .map((text) => text.trim());
    assert.deepEqual(
      found.slice(0, -1),
      expected.map(([, output]) => output),
    );
    assert.deepEqual([status, stderr.toString("latin1", bytes.length), found.at(-1)], [7, "err\n", ""]);
  });

  it("a read-only root disk without a place for /dev, /proc, /sys, /tmp and /run works as any", async () => {
    const root = join(folder, "root");
    const image = join(folder, "root.ext4");
    for (const name of ["bin", "etc", "data"]) mkdirSync(join(root, name), { recursive: true });
    execFileSync("cp", ["/bin/busybox", join(root, "bin/busybox")]);
    for (const name of ["sh", "cat", "ls", "grep", "touch", "mount"])
      execFileSync("ln", ["-s", "busybox", join(root, "bin", name)]);
    execFileSync("ln", ["-s", "bin", join(root, "sbin")]);
    writeFileSync(join(root, "data/file"), "from the disk\n");
    writeFileSync(join(root, "top"), "at the top\n");
    writeFileSync(join(root, "etc/hostname"), "own-name\n");
    writeFileSync(join(root, "etc/hosts"), "");
    execFileSync("mke2fs", ["-q", "-F", "-t", "ext4", "-d", root, image, "16M"], {
      env: { ...process.env, PATH: `${process.env["PATH"] ?? ""}:/sbin:/usr/sbin` },
    });
    const script = `cat /data/file /top; ls -d /dev/null /proc/self /sys/class /tmp /run; echo x >/tmp/x && cat /tmp/x
      grep -c localhost /etc/hosts; echo $HOSTNAME; touch /data/new 2>&1; ls -l /sbin | grep -c "bin$"`;
    const { status, stdout, stderr } = await boot(
      ["--disk", `path=${image},root,readonly`, "--", "sh", "-c", script],
      Buffer.alloc(0),
    );
    assert.deepEqual(
      [stdout.toString("latin1").split("\n"), stderr.toString("latin1"), status],
      [
        [
          ...[
            "from the disk",
            "at the top",
            "/dev/null",
            "/proc/self",
            "/run",
            "/sys/class",
            "/tmp",
            "x",
            "2",
            "own-name",
          ],
          ...["touch: /data/new: Read-only file system", "1", ""],
        ],
        "",
        0,
      ],
    );
  });
});
