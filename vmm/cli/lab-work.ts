// The vmlet in the lab's saved state: it loads its code, boots a guest so that all of it is warm, and then waits for
// the one command that it will be. vmm/lab/make-state.ts starts it. Whatever it does before the wait, every lab
// that starts from the state has done: nothing random, and nothing of this run.
import { randomBytes } from "node:crypto";
import { closeSync, existsSync, openSync, readSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { WriteStream } from "node:tty";
import { beginWork } from "../host/clock.js";
import { guestFile } from "../host/guest-files.js";
import { WAITING_CLI } from "../lab/checkout.js";
import { decodeWork, FIRST_PIPE, LENGTH_BYTES, WAITING_WORD, type Work } from "../lab/work.js";
import { duplicateOnto } from "../sys/descriptors.js";
import { ioctl } from "../sys/ioctl-calls.js";
import { boot } from "./boot.js";

const STREAMS = [0, 1, 2] as const;
const TIOCSCTTY = 0x540e;
/** From whoever has it. */
const STEAL = 1;
/** vCPUs of each boot; more of them make the code no faster. The threads of the first stay for the guest that comes. */
const REHEARSALS = [2, 1] as const;
const REPORT = "/tmp/rehearsal.json";
/** As many as a double holds. */
const RANDOM_BYTES = 6;

/** Waits, becomes the command, and gives its arguments. */
export async function takeWork(): Promise<readonly string[]> {
  try {
    await rehearse();
  } catch (error) {
    // The state then has no vmlet that waits, and whoever makes it says so.
    say((error as Error).message);
    process.exit(1);
  }
  // From here to the read's end, this process stands still in the state.
  say("");
  const work = decodeWork(read(read(LENGTH_BYTES).readUInt32LE(0)));
  beginWork();
  // The engine's own sequence is part of the state. OpenSSL's starts anew, because its clock has jumped (make-state.ts).
  Math.random = () => randomBytes(RANDOM_BYTES).readUIntBE(0, RANDOM_BYTES) / 2 ** (8 * RANDOM_BYTES);
  return become(work);
}

/** It waits, or why it does not. */
function say(text: string): void {
  writeFileSync(`${WAITING_WORD}.new`, text);
  renameSync(`${WAITING_WORD}.new`, WAITING_WORD);
}

/** What differs between hosts is their guest: without one, the code is only loaded. */
async function rehearse(): Promise<void> {
  const [kernel, initrd] = [guestFile("default/vmlinux"), guestFile("initramfs.cpio")];
  if (!existsSync(kernel) || !existsSync(initrd)) return;
  const guest = ["--accel", "kvm", "--quiet", "--report", REPORT, "--kernel", kernel, "--initrd", initrd];
  for (const cpus of REHEARSALS) {
    const status = await boot([...guest, "--cpus", String(cpus), "--", "true"], { isRehearsal: true });
    if (status !== 0) throw new Error(`The guest of the rehearsal has ended with ${String(status)}`);
  }
  rmSync(REPORT);
}

/** What comes first on what will be standard input. */
function read(length: number): Buffer {
  const bytes = Buffer.alloc(length);
  for (let at = 0; at < length;) {
    const count = readSync(FIRST_PIPE, bytes, at, length - at, null);
    if (count === 0) process.exit(0);
    at += count;
  }
  return bytes;
}

/** Streams, folder, environment: as if this program had been started now. */
function become({ argv, env, cwd, terminal }: Work): readonly string[] {
  if (terminal === undefined) for (const fd of STREAMS) duplicateOnto(FIRST_PIPE + fd, fd);
  else {
    const fd = openSync(terminal, "r+");
    // It is another session's, which holds it for this one.
    ioctl(fd, "TIOCSCTTY", TIOCSCTTY, STEAL);
    for (const stream of STREAMS) duplicateOnto(fd, stream);
    closeSync(fd);
    lookAtTerminal();
  }
  for (const stream of STREAMS) closeSync(FIRST_PIPE + stream);
  process.chdir(cwd);
  for (const name of Object.keys(process.env)) Reflect.deleteProperty(process.env, name);
  Object.assign(process.env, env);
  process.argv = [process.execPath, WAITING_CLI, ...argv];
  return argv;
}

/** A thread of the rehearsal has made Node open standard output as it was then; this is what Node does with a terminal. */
function lookAtTerminal(): void {
  const stdout = new WriteStream(1) as WriteStream & { _refreshSize(): void };
  process.on("SIGWINCH", () => {
    stdout._refreshSize();
  });
  Object.defineProperty(process, "stdout", { configurable: true, enumerable: true, get: () => stdout });
}
