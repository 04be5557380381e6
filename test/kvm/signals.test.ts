// Needs: a /dev/kvm of any kind, and `make build`; for terminals, script(1). The program as signals, job
// control and terminals meet it.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { findProgram } from "../../vmm/host/programs.js";
import { whyNoKvm } from "../helpers/kvm-guard.js";
import { asm, miniKernel, type MiniKernel } from "../helpers/mini-kernel.js";
import { jailMode } from "../helpers/jail-lane.js";
import { PROGRAM, bootWords, run, start } from "../helpers/program.js";
import { skip } from "../helpers/skip.js";

const SIGSYS = 31;
/** Node's debugger, 127.0.0.1:9229, in /proc/net/tcp. */
const DEBUGGER = /:240D [0-9A-F:]+ 0A /;

function kill(signal: number, pid: number): void {
  // process.kill knows no real-time signals.
  execFileSync("/bin/kill", [`-${String(signal)}`, String(pid)]);
}

function debuggerListens(): boolean {
  return ["/proc/net/tcp", "/proc/net/tcp6"].some(
    (file) => existsSync(file) && DEBUGGER.test(readFileSync(file, "latin1")),
  );
}

describe("kvm: signals", function () {
  this.timeout(60_000);
  const folder = mkdtempSync(join(tmpdir(), "vmlet-signals-"));
  const socket = join(folder, "socket");
  let busy: MiniKernel;
  let brief: MiniKernel;
  /** Says nothing. */
  let mute: MiniKernel;
  let counting: MiniKernel;

  before(function () {
    const reason = whyNoKvm();
    if (reason !== undefined) skip(this, reason);
    busy = miniKernel(asm.print("up\n"), asm.spin());
    mute = miniKernel(asm.spin());
    counting = miniKernel(asm.count());
    brief = miniKernel(asm.print("up\n"), asm.powerOff(7), asm.haltForEver());
  });

  after(() => {
    busy.remove();
    brief.remove();
    mute.remove();
    counting.remove();
    rmSync(folder, { recursive: true });
  });

  it("each signal that ends a program ends the VM, with its status and no socket left", async () => {
    const failures: string[] = [];
    const end = async (signal: number): Promise<void> => {
      const path = `${socket}.${String(signal)}`;
      const vm = start(bootWords(busy.path, "--control", path));
      await vm.until("up");
      assert.ok(existsSync(path));
      kill(signal, vm.pid);
      const { status, stderr } = await vm.ended;
      // In the jail, this one ends the process at once: what is outside comes to know it.
      while (signal === SIGSYS && jailMode !== undefined && existsSync(path)) await sleep(10);
      if (status !== 128 + signal || existsSync(path)) failures.push(`${String(signal)}: ${String(status)} ${stderr}`);
    };
    // Some of each kind; test/unit/signals.test.ts has them all.
    for (const group of [
      [1, 2, 3, 4],
      [11, 14, 15],
      [24, 31, 34, 64],
    ]) {
      await Promise.all(group.map(end));
    }
    assert.deepEqual(failures, []);
  });

  it("a signal ends a VM whose guest has left the main thread, too", async () => {
    const vm = start(bootWords(busy.path, "--control", socket));
    await vm.until("up");
    await sleep(2500);
    kill(3, vm.pid);
    assert.equal((await vm.ended).status, 131);
    assert.equal(existsSync(socket), false);
  });

  it("what was ignored at the start stays ignored: nohup, and jobs that a shell runs in the background", async () => {
    const words = bootWords(busy.path).map((word) => `'${word}'`);
    const vm = start(["sh", "-c", `trap '' HUP INT QUIT USR1 USR2 TSTP 36; exec ${words.join(" ")}`]);
    await vm.until("up");
    for (const signal of [1, 2, 3, 10, 12, 20, 36]) kill(signal, vm.pid);
    await sleep(300);
    assert.equal(vm.child.exitCode, null);
    assert.match(readFileSync(`/proc/${String(vm.pid)}/status`, "latin1"), /^State:\s+[RS]/m);
    kill(15, vm.pid);
    assert.equal((await vm.ended).status, 143);
  });

  it("SIGUSR1 opens no debugger, whenever it comes, and pauses the guest; SIGUSR2 lets it go on", async () => {
    assert.equal(debuggerListens(), false, "another program's debugger is open");
    let opened = false;
    const statuses = new Set<number>();
    for (let delayMs = 0; delayMs <= 120; delayMs += 8) {
      const vm = start(bootWords(brief.path));
      await sleep(delayMs);
      if (vm.child.exitCode === null) kill(10, vm.pid);
      const look = setInterval(() => {
        opened ||= debuggerListens();
        if (vm.child.exitCode === null) process.kill(vm.pid, "SIGUSR2");
      }, 20);
      statuses.add((await vm.ended).status);
      clearInterval(look);
    }
    assert.equal(opened, false);
    // Node itself takes the signals for a moment at its start: it goes on, or they end it.
    assert.deepEqual(
      [...statuses].filter((status) => ![7, 138, 140].includes(status)),
      [],
    );
  });

  for (const cpus of ["1", "2"]) {
    it(`${cpus} vCPUs: SIGUSR1 pauses at any time, SIGUSR2 goes on, and the end of a paused guest is one`, async () => {
      const control = `${socket}.${cpus}`;
      for (const delayMs of [0, 300, 2500]) {
        const vm = start(bootWords(counting.path, "--cpus", cpus, "--control", control));
        let written = 0;
        vm.child.stdout?.on("data", (text: string) => (written += text.length));
        await vm.until("\0\x01\x02");
        await sleep(delayMs);
        kill(10, vm.pid);
        assert.equal((await run([PROGRAM, "pause", control])).stderr, "");
        await sleep(100);
        const before = written;
        await sleep(100);
        assert.equal(written, before);
        kill(12, vm.pid);
        assert.equal((await run([PROGRAM, "resume", control])).status, 0);
        await sleep(100);
        assert.ok(written > before);
        kill(10, vm.pid);
        await sleep(100);
        kill(15, vm.pid);
        const { status, stdout } = await vm.ended;
        assert.equal(status, 143);
        // Not one byte was lost, or came twice.
        const bytes = Buffer.from(stdout, "latin1");
        assert.equal(
          bytes.findIndex((byte, at) => byte !== (at & 0xff)),
          -1,
        );
        const late = await run([PROGRAM, "pause", control]);
        assert.equal(late.status, 69, late.stderr);
      }
    });
  }

  it("every command is ended by SIGUSR1 and opens no debugger", async () => {
    const file = join(folder, "metrics");
    writeFileSync(file, "");
    const stats = start([PROGRAM, "stats", "--follow", file]);
    await sleep(700);
    kill(10, stats.pid);
    await sleep(100);
    assert.equal(debuggerListens(), false);
    assert.equal((await stats.ended).status, 138);
  });

  describe("on a terminal", () => {
    before(function () {
      if (findProgram("script") === undefined) skip(this, "script (Debian package bsdutils) is missing");
    });

    /** Runs a bash script with job control on a new terminal; what the terminal shows, without returns. */
    async function onTerminal(script: string): Promise<string> {
      const file = join(folder, "script");
      const functions = `modes() { stty -a | grep -ow -e '-*isig' -e '-*icanon' -e '-*echo' | tr '\\n' ' '; }
        raw() { until [[ $(modes) == -isig* ]]; do sleep 0.1; done; modes; }
        state() { cut -d ' ' -f 3 /proc/$1/stat; }
        V="${bootWords(busy.path, "--quiet").join(" ")}"
        BRIEF="${bootWords(brief.path, "--quiet").join(" ")}"
        child() { until pgrep -P $$ -f "^node.*vmlet.js boot" >${folder}/pid; do sleep 0.1; done; cat ${folder}/pid; }\n`;
      writeFileSync(file, `${functions}${script}`);
      const { stdout } = await run(["script", "-qec", `bash -m ${file}`, "/dev/null"], {}, 40_000);
      return stdout.replaceAll("\r", "");
    }

    it("in the background, a VM is not stopped and the terminal stays as it is", async () => {
      const shown = await onTerminal(`$BRIEF & wait $!; echo "status $?"; $V & pid=$!; sleep 3
        echo "state $(state $pid)"; modes; kill $pid; wait $pid; echo "status $?"; modes`);
      assert.match(shown, /up\nstatus 7\n/);
      assert.match(shown, /state [RS]\nisig icanon echo /);
      assert.match(shown, /status 143\nisig icanon echo $/);
    });

    it("a guest that says nothing: a line of progress, and none of it left", async () => {
      const shown = await onTerminal(
        `(sleep 5; kill $(child)) & ${bootWords(mute.path, "--quiet").join(" ")}; echo "status $?"`,
      );
      // In the terminal's bytes, the ellipsis is three.
      assert.match(shown, /vmlet: the guest is booting ... \d\.\d s\x1b\[K\x1b\[Kstatus 143/);
    });

    it("Ctrl-A p pauses the guest, and once more lets it go on", async () => {
      const keys = `(sleep 2; printf '\\001p'; sleep 1; printf '\\001P'; sleep 1; printf '\\001x') |`;
      const { stdout } = await run(["sh", "-c", `${keys} script -qec "${bootWords(busy.path).join(" ")}" /dev/null`]);
      const lines = [...stdout.matchAll(/^vmlet: (.*)\r$/gm)].map(([, line]) => line);
      assert.deepEqual(lines.slice(-3, -1), ["the guest is paused; Ctrl-A p goes on", "the guest goes on"], stdout);
    });

    it("in the foreground it is raw, and as it was found at every end", async () => {
      const shown = await onTerminal(`stty -echo; (raw; kill -QUIT $(child)) & $V; echo "status $?"; modes`);
      assert.match(shown, /-isig -icanon -echo /);
      assert.match(shown, /status 131\nisig icanon -echo $/);
    });

    it("stopped, it gives the terminal back, and takes it again when it goes on", async () => {
      const shown = await onTerminal(`(raw; kill -TSTP $(child)) & $V
        echo; modes; echo "stopped $(state $(child))"; (raw; kill $(child)) & fg %2 >/dev/null; echo "status $?"; modes`);
      assert.match(shown, /\nisig icanon echo stopped T\n/);
      assert.match(shown, /-isig -icanon -echo [^]*status 143\nisig icanon echo $/);
    });

    it("brought to the foreground, it takes the terminal", async () => {
      const shown = await onTerminal(`$V & sleep 1.5; modes; (raw; kill $(child)) & fg %1 >/dev/null; modes`);
      assert.match(shown, /isig icanon echo [^]*-isig -icanon -echo [^]*isig icanon echo $/);
    });
  });
});
