// A guest in the lab: its monitor runs there (vmm/cli/firecracker-in-lab.ts), with this host's disks; the API, the console's files,
// log and metrics are here.
import type { HintingStatus } from "../../devices/virtio/balloon/hinting.js";
import { diskName, type ResolvedDisk } from "../config/disks.js";
import type { ResolvedConfig } from "../config/types.js";
import { LabError } from "../errors.js";
import type { PluggedDisk } from "../lab/disks.js";
import { FIRECRACKER_GUEST_COMMAND } from "../lab/environment.js";
import { configInLab, labOfGuest } from "../lab/guest-inputs.js";
import { LabSession } from "../lab/session.js";
import type { VmHost } from "../machine/host-callbacks.js";
import { errorOf, LineReader } from "../sdk/monitor-messages.js";
import { openDisks } from "../virtio/attach/disks.js";
import { closeDiskFile } from "../virtio/backends/disk-file.js";
import type { BalloonReport } from "../virtio/device-host.js";
import { Fault, faultOf } from "./fault.js";
import type { GuestEnd, HeldGuest } from "./guest.js";
import { encodeLine, MAX_LINE, type FromLab, type LabCall, type LabCalls } from "./lab-messages.js";
import type { Section } from "./sections.js";
import { rateLimiter } from "./vm-config.js";

/** Of what is said in the lab, for an error, `characters`. */
const KEPT_WORDS = 4096;
/** From the word to stop until the lab is taken down; the process waits a little longer, `ms`. */
const GRACE_MS = 800;
/** Of one message's part of the console's input, `bytes`. */
const INPUT_PIECE = 4096;

interface Waiting {
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: unknown) => void;
}

export class LabGuest implements HeldGuest {
  readonly ended: Promise<GuestEnd>;
  readonly #host: VmHost;
  readonly #config: ResolvedConfig;
  readonly #abort = new AbortController();
  /** Resolves when it runs. */
  readonly #started: Promise<LabSession>;
  readonly #waiting = new Map<number, Waiting>();
  #setStarted: (session: LabSession) => void = () => undefined;
  #session: LabSession | undefined;
  #lastId = 0;
  /** Those that have another file than at the start. */
  readonly #disks = new Map<number, PluggedDisk>();
  #isPaused = false;
  /** What was given of the console's input is not yet the guest's. */
  #isFull = true;
  #hasEnded = false;
  #end: GuestEnd | undefined;
  /** Settles once the console has taken all that has come. */
  #written: Promise<void> = Promise.resolve();
  #failure: Error | undefined;
  #words = "";
  #statistics: ReturnType<HeldGuest["statistics"]> = { exits: {}, devices: {} };

  /** Starts it: nobody waits for the lab, which clients have no time for. */
  constructor(config: ResolvedConfig, host: VmHost) {
    this.#host = host;
    this.#config = config;
    this.#started = new Promise((resolve) => (this.#setStarted = resolve));
    this.ended = this.#run().finally(() => {
      for (const { reject } of this.#waiting.values()) reject(gone());
      this.#waiting.clear();
      this.#hasEnded = true;
    });
    this.ended.catch(() => undefined);
  }

  get state(): HeldGuest["state"] {
    return this.#isPaused ? "Paused" : "Running";
  }

  async pause(): Promise<void> {
    if (this.#isPaused) return;
    await this.#ask("The microVM cannot be paused", "pause", null);
    this.#isPaused = true;
  }

  async resume(): Promise<void> {
    if (!this.#isPaused) return;
    await this.#ask("The microVM cannot be resumed", "resume", null);
    this.#isPaused = false;
  }

  async updateDrive(index: number, update: Section<"PartialDrive">): Promise<void> {
    const what = `Drive ${update.drive_id}`;
    const limits = rateLimiter(update.rate_limiter);
    const path = update.path_on_host;
    if (typeof path !== "string") await this.#ask(what, "updateDisk", { name: diskName(index), rateLimiter: limits });
    else await this.#replaceFile(what, index, path, limits);
  }

  /** The lab gets another disk, the guest that one in place of its own, and then nobody has the old one. */
  async #replaceFile(what: string, index: number, path: string, limits: ReturnType<typeof rateLimiter>): Promise<void> {
    const disk = this.#config.disks[index];
    if (disk === undefined) throw new Fault(`${what}: there is none`);
    try {
      for (const file of openDisks([{ ...disk, path }])) closeDiskFile(file);
      const session = await this.#running();
      const plugged = await session.disks.plug({ ...disk, path });
      try {
        await this.#call("updateDisk", { name: diskName(index), path: plugged.path, rateLimiter: limits });
      } catch (error) {
        await plugged.unplug();
        throw error;
      }
      const old = this.#disks.get(index) ?? session.disks.first(index);
      this.#disks.set(index, plugged);
      await old.unplug();
    } catch (error) {
      throw faultOf(error, what);
    }
  }

  updateNet(): never {
    throw new Fault("A guest in the lab has no network interfaces");
  }

  async updateBalloon(targetMib: number): Promise<void> {
    await this.#ask("Balloon", "setBalloon", { targetMib });
  }

  async updateBalloonInterval(seconds: number): Promise<void> {
    await this.#ask("Balloon", "setBalloonInterval", { seconds });
  }

  async balloon(): Promise<BalloonReport | undefined> {
    return (await this.#ask("Balloon", "statistics", null)).balloon;
  }

  async startHinting(endsItself: boolean): Promise<void> {
    await this.#ask("Balloon", "startHinting", { endsItself });
  }

  async stopHinting(): Promise<void> {
    await this.#ask("Balloon", "stopHinting", null);
  }

  hinting(): Promise<HintingStatus> {
    return this.#ask("Balloon", "hinting", null);
  }

  async sendCtrlAltDel(): Promise<void> {
    const isPressed = await this.#ask("SendCtrlAltDel", "pressCtrlAltDel", null);
    if (!isPressed) throw new Fault("The guest has not read the keys that were pressed before");
  }

  createSnapshot(): never {
    throw new Fault("A guest in the lab cannot be saved: use a host with a /dev/kvm");
  }

  async refresh(): Promise<void> {
    if (this.#session === undefined) return;
    const { exits, devices } = await this.#ask("Metrics", "statistics", null);
    this.#statistics = { exits, devices };
  }

  input(bytes: Uint8Array): number {
    if (this.#isFull || this.#session === undefined || bytes.length === 0) return 0;
    const piece = bytes.subarray(0, INPUT_PIECE);
    this.#isFull = true;
    this.#session.input(encodeLine({ input: Buffer.from(piece).toString("base64") }));
    return piece.length;
  }

  statistics(): ReturnType<HeldGuest["statistics"]> {
    return this.#statistics;
  }

  /** What the guest has written is on its disks' files after its end. */
  stop(): void {
    this.#abort.abort(new LabError("The guest was stopped"));
    this.#session?.input(encodeLine({ id: ++this.#lastId, call: "stop", asked: null }));
    setTimeout(() => void this.#session?.close(), GRACE_MS).unref();
  }

  closeDevices(): void {
    // They were the lab's.
  }

  async #run(): Promise<GuestEnd> {
    const config = this.#config;
    const session = await LabSession.start(labOfGuest(config), {
      abort: this.#abort.signal,
      onNotice: (line) => {
        this.#host.log?.(line);
      },
    });
    try {
      const reader = new LineReader((line) => {
        this.#take(JSON.parse(line) as FromLab);
      }, MAX_LINE);
      const running = session.run({
        argv: [FIRECRACKER_GUEST_COMMAND],
        isVmlet: true,
        onOutput: (bytes, stream) => {
          const text = bytes.toString("latin1");
          if (stream === "stdout") reader.push(text);
          else this.#words = (this.#words + text).slice(-KEPT_WORDS);
          // More comes once the console has taken this.
          return this.#written;
        },
      });
      this.#session = session;
      session.input(encodeLine({ config: configInLab({ ...config, disks: config.disks.map(asFlushed) }) }));
      const { status } = await running;
      await this.#written;
      if (this.#failure !== undefined) throw this.#failure;
      if (this.#end !== undefined) return this.#end;
      throw new LabError(`The guest's monitor in the lab has ended with ${String(status)}\n${this.#words.trim()}`);
    } catch (error) {
      if (this.#abort.signal.aborted) return { outcome: "killed", registers: undefined };
      throw error;
    } finally {
      await session.close();
    }
  }

  #take(message: FromLab): void {
    if ("output" in message) {
      const bytes = Buffer.from(message.output, "base64");
      this.#written = this.#written.then(
        () =>
          new Promise((done) => {
            this.#host.output(bytes, done);
          }),
      );
    } else if ("started" in message || "room" in message) {
      if ("started" in message && this.#session !== undefined) this.#setStarted(this.#session);
      this.#isFull = false;
      this.#host.inputRoom?.();
    } else if ("reply" in message) {
      const waiting = this.#waiting.get(message.reply);
      this.#waiting.delete(message.reply);
      if (message.failure === undefined) waiting?.resolve(message.value);
      else waiting?.reject(errorOf(message.failure));
    } else if ("initStarted" in message) this.#host.initStarted?.(process.hrtime.bigint());
    else if ("log" in message) this.#host.log?.(message.log);
    else if ("failed" in message) this.#failure = errorOf(message.failed);
    else {
      const { outcome, registers, ...statistics } = message.ended;
      this.#end = { outcome, registers };
      this.#statistics = statistics;
    }
  }

  /** Waits until it runs. Rejects with Fault; `what` stands in front of the message. */
  async #ask<Name extends LabCall>(
    what: string,
    call: Name,
    asked: Parameters<LabCalls[Name]>[0],
  ): Promise<ReturnType<LabCalls[Name]>> {
    try {
      return await this.#call(call, asked);
    } catch (error) {
      throw faultOf(error, what);
    }
  }

  async #call<Name extends LabCall>(
    call: Name,
    asked: Parameters<LabCalls[Name]>[0],
  ): Promise<ReturnType<LabCalls[Name]>> {
    const session = await this.#running();
    const id = ++this.#lastId;
    const reply = new Promise<unknown>((resolve, reject) => this.#waiting.set(id, { resolve, reject }));
    session.input(encodeLine({ id, call, asked }));
    return (await reply) as ReturnType<LabCalls[Name]>;
  }

  async #running(): Promise<LabSession> {
    await Promise.race([this.#started, this.ended]);
    if (this.#hasEnded || this.#session === undefined) throw gone();
    return this.#session;
  }
}

/** What a guest flushes there has to reach this host's page cache: what is only in the lab's own is lost with it. */
function asFlushed(disk: ResolvedDisk): ResolvedDisk {
  return { ...disk, cache: "writeback" };
}

function gone(): LabError {
  return new LabError("the guest has ended");
}
