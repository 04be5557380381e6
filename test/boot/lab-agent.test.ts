// Needs: what the lab needs, a built program. Commands in one lab, through the agent that it has in common with guests.
import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { existsSync } from "node:fs";
import { resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { missingLabPrograms } from "../../vmm/lab/programs.js";
import { LabSession } from "../../vmm/lab/session.js";
import { WINDOW } from "../../vmm/agent/stream.js";
import { PROGRAM } from "../helpers/program.js";
import { skip } from "../helpers/skip.js";

const LIMIT_MS = 400_000;
const MIB = 2 ** 20;
const SIGTERM = 15;

describe("boot: commands in the lab", function () {
  this.timeout(LIMIT_MS);
  let lab: LabSession | undefined;

  before(async function () {
    const missing = missingLabPrograms();
    if (missing.length > 0) skip(this, `the lab lacks ${missing.join(", ")}`);
    if (!existsSync(PROGRAM)) skip(this, "dist/vmlet.js is not built");
    lab = await LabSession.start({ packageRoot: resolve("."), memoryMib: 1536, cpus: 2, inputs: [] });
  });
  after(async () => {
    await lab?.close();
  });

  const session = (): LabSession => {
    assert.ok(lab !== undefined);
    return lab;
  };
  const sh = (script: string, stdin: string | Uint8Array = "") => session().run({ argv: ["sh", "-c", script], stdin });

  it("several at once, each with input, outputs, folder, variables and exit code of its own", async () => {
    const results = await Promise.all(
      [1, 2, 3].map((n) =>
        session().run({
          argv: ["sh", "-c", `cat; sleep 1; echo "$A $PWD" >&2; exit ${String(n)}`],
          stdin: `input ${String(n)}`,
          env: { A: `variable ${String(n)}` },
          cwd: n === 3 ? "/tmp" : "/",
        }),
      ),
    );
    assert.deepEqual(
      results.map(({ status, stdout, stderr }) => [status, String(stdout), String(stderr)]),
      [1, 2, 3].map((n) => [n, `input ${String(n)}`, `variable ${String(n)} ${n === 3 ? "/tmp" : "/"}\n`]),
    );
  });

  it("bytes both ways are exact, and no faster than they are read", async () => {
    const input = randomBytes(3 * MIB);
    const hash = createHash("sha256");
    let length = 0;
    let atPause: number | undefined;
    let whilePaused = 0;
    let reader = Promise.resolve();
    const { status } = await session().run({
      argv: ["cat"],
      stdin: input,
      onOutput: (bytes) => {
        length += bytes.length;
        hash.update(bytes);
        if (atPause === undefined && length > MIB) {
          const before = length;
          atPause = before;
          reader = sleep(500).then(() => {
            whilePaused = length - before;
          });
        }
        return reader;
      },
    });
    // Of what nobody reads, at most a window is on its way.
    assert.ok(atPause !== undefined && whilePaused <= WINDOW, String(whilePaused));
    const expected = createHash("sha256").update(input).digest("hex");
    assert.deepEqual([status, length, hash.digest("hex")], [0, input.length, expected]);
  });

  it("what cannot be run has the shell's exit code and a reason; a signal's end is 128 and its number", async () => {
    const missing = await session().run({ argv: ["/no/such"], stdin: "" });
    assert.deepEqual([missing.status, String(missing.stdout)], [127, ""]);
    assert.match(String(missing.stderr), /^lab: \/no\/such cannot be run .*not found\n$/);
    const folder = await session().run({ argv: ["/etc"], stdin: "" });
    assert.equal(folder.status, 126);
    assert.equal((await sh("kill -9 $$")).status, 137);
    await assert.rejects(session().run({ argv: ["echo", "x".repeat(65_536)] }), {
      code: "ERR_CONFIG",
      message: /the limit is 65536/,
    });
  });

  it("signals, a terminal with its size, files of /output", async () => {
    let text = "";
    const running = session().run({
      argv: ["sh", "-c", "trap 'echo ended; exit 5' TERM; stty size; read -r line; stty size; echo \"<$line>\"; cat"],
      terminal: { rows: 33, columns: 101 },
      onOutput: (bytes) => {
        text += bytes.toString("latin1");
      },
    });
    const until = async (pattern: RegExp): Promise<void> => {
      while (!pattern.test(text)) await sleep(20);
    };
    await until(/33 101/);
    session().resize(40, 90);
    session().input(Buffer.from("words\r"));
    await until(/40 90\r\n<words>/);
    session().signal(SIGTERM);
    // The shell hears it once what it waits for has ended: Ctrl-D.
    session().input(Buffer.from("\x04"));
    assert.equal((await running).status, 5);
    assert.match(text, /ended\r\n$/);

    const { files } = await sh("echo one >/output/a; head -c 300000 /dev/zero >/output/b; mkdir -p /output/folder");
    assert.deepEqual([...files].map(([name, content]) => [name, content.length]).sort(), [
      ["a", 4],
      ["b", 300_000],
    ]);
    assert.equal((await sh("true")).files.size, 0);
  });

  it("a lab that ends takes its commands with it, with a word", async () => {
    const running = sh("sleep 1000");
    running.catch(() => undefined);
    await sleep(300);
    await session().close();
    await assert.rejects(running, { code: "ERR_LAB", message: /^The lab has stopped unexpectedly/ });
    await assert.rejects(sh("true"), { code: "ERR_LAB" });
  });
});
