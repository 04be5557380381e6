// The guest of the bench of snapshots: Linux, 128 MiB, a block device and vsock attached, with a program that waits for
// a line and says it again. Saved once; VMs of it are asked.
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import {
  createSnapshot,
  createVm,
  openSnapshot,
  type OpenedSnapshot,
  type Machine,
  type VmExit,
  type VmHost,
} from "../../vmm/index.js";
import type { Sample } from "../harness.js";
import { collectGarbage } from "./garbage.js";
import { GUEST_MIB, cmdline } from "./guest.js";

/** A guest's kernel may be emulated, on a busy machine, `ms`. */
const PATIENCE_MS = 120_000;
const ASK_AGAIN_MS = 1000;
const DISK_BYTES = 16 * 2 ** 20;

/** A VM whose program answers. */
export class AskedVm {
  readonly vm: Machine;
  said = "";
  #heard: () => void = () => undefined;
  #run: Promise<VmExit> | undefined;

  constructor(make: (host: VmHost) => Machine) {
    this.vm = make({
      output: (bytes, done) => {
        this.said += Buffer.from(bytes).toString("latin1");
        this.#heard();
        done();
      },
    });
  }

  start(): void {
    this.#run = this.vm.start();
    this.#run.catch(() => undefined);
  }

  /** Resolves once the line comes back. */
  async ask(line: string, patienceMs = PATIENCE_MS): Promise<void> {
    const from = this.said.length;
    this.vm.input(Buffer.from(`${line}\n`));
    await new Promise<void>((answered, reject) => {
      const late = setTimeout(() => reject(new Error(`no answer: ${JSON.stringify(this.said)}`)), patienceMs);
      this.#heard = () => {
        if (!this.said.slice(from).includes(line)) return;
        clearTimeout(late);
        answered();
      };
      this.#heard();
    });
  }

  /** Ends the guest. */
  async end(): Promise<VmExit | undefined> {
    this.vm.stop();
    const exit = await this.#run;
    await this.vm.close();
    return exit;
  }
}

/** Restored by `make`, asked at once: when the guest ran first, and when it answered. */
export async function timed(make: (host: VmHost) => Machine): Promise<Sample> {
  const beganNs = process.hrtime.bigint();
  const began = performance.now();
  const asked = new AskedVm(make);
  const madeMs = performance.now() - began;
  let answeredMs = NaN;
  let exit: VmExit | undefined;
  try {
    asked.start();
    await asked.ask("now");
    answeredMs = performance.now() - began;
  } finally {
    exit = await asked.end();
  }
  const firstRun = exit?.milestones.firstRun ?? beganNs;
  return {
    restore_call_ms: madeMs,
    to_first_run_ms: Number(firstRun - beganNs) / 1e6,
    to_answer_ms: answeredMs,
  };
}

export interface SavedGuest {
  readonly folder: string;
  readonly snapshot: OpenedSnapshot;
  /** The VM that was saved: it goes on. */
  readonly original: AskedVm;
  /** Ends of its own for each VM. */
  readonly overrides: () => { readonly vsock: { readonly path: string; readonly cid: number } };
  close(): Promise<void>;
}

export async function saveGuest(kernel: string): Promise<SavedGuest> {
  const work = mkdtempSync(join(tmpdir(), "vmlet-bench-"));
  const disk = join(work, "disk.img");
  writeFileSync(disk, "");
  truncateSync(disk, DISK_BYTES);
  const folder = join(work, "snapshot");
  const original = new AskedVm((host) =>
    createVm(
      {
        kernel: resolve(`guest/out/${kernel}/vmlinux`),
        initrd: resolve("guest/out/initramfs.cpio"),
        memoryMib: GUEST_MIB,
        bareCmdline: true,
        cmdline: cmdline(["cat"], "k"),
        disks: [{ path: disk, isReadonly: true }],
        vsock: { path: join(work, "vsock"), cid: 3 },
      },
      host,
    ),
  );
  original.start();
  for (const until = performance.now() + PATIENCE_MS; ;) {
    try {
      await original.ask("up", ASK_AGAIN_MS);
      break;
    } catch (error) {
      if (performance.now() > until) throw error;
    }
  }
  // What it was asked meanwhile is answered, too.
  await new Promise((done) => setTimeout(done, 2 * ASK_AGAIN_MS));
  await createSnapshot(original.vm, folder);
  const snapshot = openSnapshot(folder);
  let vms = 0;
  return {
    folder,
    snapshot,
    original,
    overrides: () => ({ vsock: { path: join(work, `vsock-${String(vms++)}`), cid: 3 } }),
    close: async () => {
      snapshot.close();
      await original.end();
      rmSync(work, { recursive: true, force: true });
    },
  };
}

/** `MiB` of this process, without what its heap could give up. */
export function ownMemory(): { readonly pss: number; readonly private: number } {
  collectGarbage();
  const text = readFileSync("/proc/self/smaps_rollup", "utf8");
  const mib = (key: string): number => Number(new RegExp(`^${key}:\\s+(\\d+) kB`, "m").exec(text)?.[1] ?? 0) / 1024;
  return { pss: mib("Pss"), private: mib("Private_Clean") + mib("Private_Dirty") };
}
