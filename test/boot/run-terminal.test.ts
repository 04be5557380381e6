// Needs: a /dev/kvm on which guests run, a built program, script(1), busybox. Programs of VMs at terminals.
import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { StateFolder } from "../../vmm/sdk/state-folder.js";
import { countBoot } from "../helpers/booted.js";
import { makeBusyboxImage, whyNoBusybox } from "../helpers/busybox-image.js";
import { whyNoKvm } from "../helpers/kvm-guard.js";
import { PROGRAM } from "../helpers/program.js";
import { PseudoTerminal, whyNoTerminal } from "../helpers/pseudo-terminal.js";
import { skip } from "../helpers/skip.js";

/** Of a boot on a host that is busy with other tests. */
const LIMIT_MS = 240_000;
const CTRL_C = "\x03";
const CTRL_Z = "\x1a";
const DETACH = "\x10\x11";
const PROMPT = /# (?:\x1b\[6n)?/;

describe("boot: terminals of programs in VMs", function () {
  this.timeout(LIMIT_MS);
  let folder = "";
  let image = "";
  let state: StateFolder;
  const environment = { ...process.env };
  const terminals: PseudoTerminal[] = [];

  before(function () {
    const reason =
      whyNoKvm() ??
      (existsSync(PROGRAM) ? undefined : "dist/vmlet.js is not built") ??
      whyNoBusybox() ??
      whyNoTerminal();
    if (reason !== undefined) skip(this, reason);
    folder = mkdtempSync(join(tmpdir(), "vmlet-terminal-"));
    process.env["VMLET_STATE"] = join(folder, "state");
    image = makeBusyboxImage(folder);
    state = new StateFolder();
    // The boot of this kind of guest.
    assert.equal(vmlet("run", image, "true").status, 0);
    countBoot();
  });

  afterEach(() => {
    for (const terminal of terminals.splice(0)) terminal.close();
    for (const { id } of folder === "" ? [] : state.list()) vmlet("rm", "--force", id);
  });

  after(() => {
    process.env = environment;
    if (folder !== "") rmSync(folder, { recursive: true, force: true });
  });

  function vmlet(...words: string[]): { status: number | null; stdout: string; stderr: string } {
    return spawnSync(PROGRAM, words, { timeout: LIMIT_MS, encoding: "utf8" });
  }

  async function terminal(rows: number, columns: number): Promise<PseudoTerminal> {
    const opened = await PseudoTerminal.open(rows, columns);
    terminals.push(opened);
    return opened;
  }

  async function nothingIsLeft(): Promise<void> {
    const left = (): string[] => {
      // What a killed process has left is put right by whoever looks.
      state.list();
      return readdirSync(join(folder, "state"));
    };
    for (let tries = 0; left().length > 1 && tries < 100; tries++) await sleep(50);
    assert.deepEqual(left(), ["names"]);
    assert.deepEqual(readdirSync(join(folder, "state/names")), []);
  }

  it("run -it: sizes, keys that are signals, leaving, coming back, another terminal beside it, its exit code; the terminal is as before", async () => {
    const first = await terminal(30, 100);
    const modes = first.modes();
    first.run([PROGRAM, "run", "-it", image, "sh"]);
    await first.until(PROMPT);
    assert.notEqual(first.modes(), modes);
    first.type("stty size\n");
    await first.until(/\n30 100\r\n/);
    first.resize(44, 123);
    first.type("until [ \"$(stty size)\" = '44 123' ]; do sleep 0.1; done; echo si''zed\n");
    await first.until(/sized\r\n/);
    first.type("sh -c 'echo be''gun; exec sleep 100'\n");
    await first.until(/begun\r\n/);
    first.type(CTRL_C);
    await first.until(/\^C/);
    first.type("echo sta''tus $?\n");
    await first.until(/status 130\r\n/);
    first.type("sh -c 'echo a''gain; exec sleep 100'\n");
    await first.until(/again\r\n/);
    first.type(CTRL_Z);
    await first.until(/Stopped/);
    first.type("kill -9 %1; wait; echo o''ver\n");
    await first.until(/over\r\n/);
    first.type(`printf 'a\\nb'; stty raw; printf 'c\\nd'; stty sane; echo\n`);
    // Without a carriage return that the guest has not sent.
    assert.match(await first.until(/b(?:\x1b\S+)?c\r?\nd/), /a\r\nbc\nd$/);
    first.type(DETACH);
    const left = await first.until(/ended \d+\r\n/);
    const [, name = ""] = /left; the VM runs on: vmlet attach (\S+)/.exec(left) ?? [];
    assert.match(left, /ended 0\r\n$/);
    assert.equal(first.modes(), modes);
    assert.match(vmlet("ps").stdout, new RegExp(`"sh" .* Up .*${name}$`, "m"));

    first.resize(20, 50);
    first.run([PROGRAM, "attach", name]);
    await first.until(PROMPT);
    first.type("stty size\n");
    await first.until(/\n20 50\r\n/);
    const second = await terminal(25, 60);
    const secondModes = second.modes();
    second.run([PROGRAM, "attach", "--detach-keys", "x,y", name]);
    await second.until(PROMPT);
    second.type("echo by $((6 * 7))\n");
    await Promise.all([first.until(/by 42\r\n/), second.until(/by 42\r\n/)]);
    second.type("xy");
    assert.equal(await second.ended(), 0);
    assert.equal(second.modes(), secondModes);
    first.type("exit 9\n");
    assert.equal(await first.ended(), 9);
    assert.equal(first.modes(), modes);
    await nothingIsLeft();
  });

  it("run -it: what cannot be run is 127 and 126, and keys that are none are refused before there is a VM", async () => {
    const one = await terminal(24, 80);
    for (const [words, code, message] of [
      [["-it", image, "no-such-program"], 127, /vmlet: no-such-program cannot be run in the guest: .*not found\r\n/],
      [["-t", image, "/etc/passwd"], 126, /vmlet: \/etc\/passwd cannot be run in the guest/],
      [["-it", "--detach-keys", "ctrl-p,zz", image, "sh"], 125, /"zz" is no key/],
      [["-d", "--rm", image, "no-such-program"], 127, /no-such-program cannot be run/],
    ] as const) {
      one.run([PROGRAM, "run", ...words]);
      const shown = await one.until(/ended \d+\r\n/);
      assert.match(shown, message);
      assert.match(shown, new RegExp(`ended ${String(code)}\r\n$`));
    }
    await nothingIsLeft();
  });

  it("run -it: a signal is the program's, the third ends the VM; a terminal that is hung up tells the program; the VM's process may be killed", async () => {
    const one = await terminal(24, 80);
    const modes = one.modes();
    const deaf = "trap '' TERM; trap 'echo hung up' HUP; trap 'exit 5' USR1; echo ready; while :; do sleep 0.1; done";
    for (const [signals, code] of [
      [["SIGUSR1"], 5],
      [["SIGTERM", "SIGTERM", "SIGTERM"], 137],
    ] as const) {
      one.run([PROGRAM, "run", "-it", image, "sh", "-c", deaf]);
      const pid = await one.pid();
      await one.until(/ready/);
      for (const signal of signals) {
        process.kill(pid, signal);
        await sleep(200);
      }
      assert.equal(await one.ended(), code);
      assert.equal(one.modes(), modes);
      await nothingIsLeft();
    }
    one.run([PROGRAM, "run", "-it", image, "sh"]);
    await one.until(PROMPT);
    process.kill(state.list()[0]?.owner.pid ?? 0, "SIGKILL");
    const shown = await one.until(/ended \d+\r\n/);
    assert.match(shown, /vmlet: the connection to VM \S+ is lost\r\nended 125/);
    assert.equal(one.modes(), modes);
    await nothingIsLeft();

    one.run([PROGRAM, "run", "-it", image, "sh", "-c", deaf]);
    await one.until(/ready/);
    one.close();
    const two = await terminal(24, 80);
    const [{ id } = { id: "" }] = state.list();
    two.run([PROGRAM, "exec", "-it", id, "sh", "-c", "trap '' HUP; echo on; sleep 100"]);
    await two.until(/on\r\n/);
    two.close();
    for (let tries = 0; /sleep 100/.test(vmlet("exec", id, "ps").stdout) && tries < 20; tries++) await sleep(100);
    assert.doesNotMatch(vmlet("exec", id, "ps").stdout, /sleep 100/);
    assert.equal(vmlet("kill", "-s", "USR1", id).status, 0);
    await nothingIsLeft();
  });

  it("run -it: an end during its start leaves nothing", async () => {
    for (const signal of ["SIGTERM", "SIGHUP", "SIGKILL"] as const) {
      for (const [words, ms] of [
        [["-it"], 60],
        [["-it"], 150],
        [["-d"], 100],
      ] as const) {
        // A detached VM whose starter is killed is a VM.
        if (signal === "SIGKILL" && words[0] === "-d") continue;
        const child = spawn("script", ["-qec", `exec ${PROGRAM} run ${words[0]} --name x ${image} cat`, "/dev/null"], {
          stdio: ["pipe", "ignore", "ignore"],
        });
        await sleep(ms);
        const found = spawnSync("pgrep", ["-P", String(child.pid)], { encoding: "utf8" }).stdout.trim();
        if (found !== "") process.kill(Number(found), signal);
        const killer = setTimeout(() => child.kill("SIGKILL"), 20_000);
        await once(child, "close");
        clearTimeout(killer);
        // Whoever was fast enough has a VM, ended or not; it may come into sight a moment after the end of what has started it.
        for (let tries = 0; tries < 20; tries++) {
          const [record] = state.list();
          if (record !== undefined) vmlet("rm", "-f", record.id);
          await sleep(100);
        }
        await nothingIsLeft();
      }
    }
  });

  it("exec -it and -t: size, exit code, signals, and the terminal is as before", async () => {
    assert.equal(vmlet("run", "-d", "--name", "web", image, "sleep", "1000").status, 0);
    const one = await terminal(33, 77);
    const modes = one.modes();
    one.run([PROGRAM, "exec", "-it", "web", "sh"]);
    await one.until(PROMPT);
    one.type("stty size; tty\n");
    await one.until(/\n33 77\r\n\/dev\/pts\/\d+\r\n/);
    one.resize(34, 78);
    await sleep(300);
    one.type("stty size\n");
    await one.until(/\n34 78\r\n/);
    one.type("exit 4\n");
    assert.equal(await one.ended(), 4);
    assert.equal(one.modes(), modes);
    one.run([PROGRAM, "exec", "-t", "web", "sh", "-c", "tty; echo ready; sleep 1000"]);
    const pid = await one.pid();
    await one.until(/\/dev\/pts\/\d+\r\r?\nready/);
    process.kill(pid, "SIGTERM");
    assert.equal(await one.ended(), 143);
    const piped = spawnSync(PROGRAM, ["exec", "-t", "web", "sh", "-c", "stty size; echo e >&2; exit 3"], {
      encoding: "utf8",
      stdio: ["ignore", "pipe", "pipe"],
    });
    assert.deepEqual([piped.stdout, piped.stderr, piped.status], ["24 80\r\ne\r\n", "", 3]);
    const refused = vmlet("exec", "-it", "web", "sh");
    assert.deepEqual([refused.status, refused.stdout], [125, ""]);
    assert.match(refused.stderr, /needs a terminal as standard input/);
  });

  it("attach: to a VM without a terminal, by several at once, one of them in a pipe that is closed, one with input", async () => {
    const script = "cat; echo ended; exit 6";
    assert.equal(vmlet("run", "-d", "-i", "--rm", "--name", "web", image, "sh", "-c", script).status, 0);
    const looks = spawn(PROGRAM, ["attach", "--no-stdin", "web"], { stdio: ["ignore", "pipe", "pipe"] });
    let seen = "";
    looks.stdout.on("data", (bytes: Buffer) => (seen += bytes.toString()));
    const gone = spawn("sh", ["-c", `${PROGRAM} attach --no-stdin web | head -n 1`], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    const typed = spawn(PROGRAM, ["attach", "web"], { stdio: ["pipe", "pipe", "inherit"] });
    let answer = "";
    typed.stdout.on("data", (bytes: Buffer) => (answer += bytes.toString()));
    await sleep(1500);
    typed.stdin.write("one\n");
    await once(typed.stdout, "data");
    typed.stdin.write("two\n");
    // Its reader has gone with the first line.
    const [goneCode] = (await once(gone, "close")) as [number];
    assert.equal(goneCode, 0);
    // More than a window: nothing of it is lost, and the end comes behind it.
    const many = Array.from({ length: 100_000 }, (_, at) => String(at));
    typed.stdin.end(`${many.join("\n")}\n`);
    const [[code], [looksCode]] = (await Promise.all([once(typed, "close"), once(looks, "close")])) as [
      [number],
      [number],
    ];
    assert.deepEqual([code, looksCode], [6, 6]);
    const expected = `${["one", "two", ...many, "ended"].join("\n")}\n`;
    assert.ok(answer === expected, `${String(answer.length)} of ${String(expected.length)}`);
    assert.ok(seen === expected);
    await nothingIsLeft();
  });
});
