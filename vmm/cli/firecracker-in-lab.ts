// The monitor, in the lab, of a guest of vmlet-firecracker's: its console and what is asked of it are lines of JSON on this process's
// standard input and output, and vmm/firecracker/lab-guest.ts, outside, has the API.
import { readdirSync, readlinkSync, writeFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { diskName } from "../config/disks.js";
import { LineReader, failureOf } from "../sdk/monitor-messages.js";
import {
  encodeLine,
  MAX_LINE,
  type FromLab,
  type LabCall,
  type LabCalls,
  type LabOrder,
  type ToLab,
} from "../firecracker/lab-messages.js";
import { OutputQueue, OutputWriter } from "../host/standard-output.js";
import { chooseAccelerator } from "../lab/accelerator.js";
import { Vm } from "../machine/vm.js";
import { loadDeviceSupport } from "../virtio/device-support.js";
import { FileInput } from "../host/file-input.js";

const STDOUT = 1;
const LOOK_MS = 5;
/** How long what a guest has written may wait there for this host's page cache, centiseconds: Linux waits for many seconds. */
const WRITEBACK_CS = "10";

/** The result is the process's exit code; how the guest has ended is in what it says. */
export async function firecrackerInLab(): Promise<number> {
  const lines = new OutputQueue(new OutputWriter(STDOUT, { vanished: () => undefined, failed: () => undefined }));
  const say = (message: FromLab, done?: () => void): void => {
    lines.push(encodeLine(message), done);
  };
  const inbox = new Inbox();
  inbox.open();
  try {
    await runGuest(inbox, say);
    return 0;
  } catch (error) {
    say({ failed: failureOf(error) });
    return 1;
  } finally {
    inbox.close();
    await lines.drained();
  }
}

async function runGuest(inbox: Inbox, say: (message: FromLab, done?: () => void) => void): Promise<void> {
  const { config } = (await inbox.first) as LabOrder;
  for (const name of ["dirty_expire_centisecs", "dirty_writeback_centisecs"]) {
    writeFileSync(`/proc/sys/vm/${name}`, WRITEBACK_CS);
  }
  const choice = chooseAccelerator("kvm");
  /** Of the console, what the guest has no room for yet. */
  let input: Uint8Array = new Uint8Array();
  const feed = (): void => {
    if (input.length === 0) return;
    input = input.subarray(vm.input(input));
    if (input.length === 0) say({ room: true });
  };
  const vm = Vm.build(
    config,
    {
      output: (bytes, done) => {
        say({ output: Buffer.from(bytes).toString("base64") }, done);
      },
      inputRoom: feed,
      initStarted: () => {
        say({ initStarted: true });
      },
      log: (line) => {
        say({ log: line });
      },
    },
    {
      known: { quirks: choice.kind === "kvm" ? choice.quirks : undefined },
      deviceSupport: await loadDeviceSupport(config),
      hearsOwner: true,
    },
  );
  try {
    const calls = callsOf(vm);
    const ended = vm.start({ threads: "threads" });
    say({ started: true });
    inbox.read((message) => {
      if ("input" in message) {
        input = Buffer.from(message.input, "base64");
        feed();
      } else void answer(calls, message).then(say);
    });
    const { outcome, registers, exits, devices } = await ended;
    say({ ended: { outcome, registers, exits, devices } });
  } finally {
    vm.closeDevices();
  }
}

type Answers = { readonly [Name in LabCall]: (asked: never) => unknown };

function callsOf(vm: Vm): Answers {
  const calls: {
    readonly [Name in LabCall]: (
      asked: Parameters<LabCalls[Name]>[0],
    ) => ReturnType<LabCalls[Name]> | Promise<ReturnType<LabCalls[Name]>>;
  } = {
    pause: () => vm.pause(),
    resume: () => {
      vm.resume();
    },
    updateDisk: async ({ name, ...update }) => {
      const old = vm.config.disks.find((_, index) => diskName(index) === name)?.path;
      vm.updateDisk(name, update);
      // What is in flight for it is done, and nothing is lost when it is pulled.
      if (old !== undefined && update.path !== undefined) await closed(old);
    },
    setBalloon: ({ targetMib }) => {
      vm.setBalloon(targetMib);
    },
    setBalloonInterval: ({ seconds }) => {
      vm.setBalloonInterval(seconds);
    },
    startHinting: (asked) => {
      vm.startBalloonHinting(asked);
    },
    stopHinting: () => {
      vm.stopBalloonHinting();
    },
    hinting: () => vm.balloonHinting(),
    statistics: () => vm.statistics(),
    stop: () => {
      vm.stop();
    },
    pressCtrlAltDel: () => vm.pressCtrlAltDel(),
  };
  return calls;
}

/** Resolves when this process has the file no longer open. */
async function closed(path: string): Promise<void> {
  const isOpen = (fd: string): boolean => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`) === path;
    } catch {
      return false;
    }
  };
  while (readdirSync("/proc/self/fd").some(isOpen)) await sleep(LOOK_MS);
}

async function answer(calls: Answers, { id, call, asked }: Extract<ToLab, { id: number }>): Promise<FromLab> {
  try {
    return { reply: id, value: await calls[call](asked as never) };
  } catch (error) {
    return { reply: id, failure: failureOf(error) };
  }
}

/** The lines of standard input: the first is the order, and the others wait until somebody reads them. */
class Inbox {
  readonly first: Promise<unknown>;
  readonly #source = new FileInput();
  readonly #waiting: ToLab[] = [];
  #take: ((message: ToLab) => void) | undefined;
  #order: ((order: unknown) => void) | undefined;

  constructor() {
    this.first = new Promise((resolve) => (this.#order = resolve));
  }

  open(): void {
    const reader = new LineReader((line) => {
      const message = JSON.parse(line) as ToLab;
      const order = this.#order;
      this.#order = undefined;
      if (order !== undefined) order(message);
      else if (this.#take === undefined) this.#waiting.push(message);
      else this.#take(message);
    }, MAX_LINE);
    this.#source.open(
      (bytes) => {
        reader.push(Buffer.from(bytes).toString("latin1"));
      },
      () => undefined,
    );
  }

  read(take: (message: ToLab) => void): void {
    this.#take = take;
    for (const message of this.#waiting.splice(0)) take(message);
  }

  close(): void {
    this.#source.close();
  }
}
