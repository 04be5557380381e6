// Moves a running VM to another monitor. While it runs, its memory is copied, and then again what it has changed
// meanwhile; at last it rests, the rest follows, and the other end goes on with it. Until the other end has said that the guest
// is its own, the VM stays here, and goes on here if anything fails.
import { createConnection, type Socket } from "node:net";
import { describeConfig } from "../../config/describe.js";
import { DiskError, HostError, SnapshotError } from "../../errors.js";
import { errnoText } from "../../host/errno-text.js";
import { hostFacts } from "../../host/facts.js";
import { VERSION } from "../../host/version.js";
import type { OpenMemory, Vm } from "../../machine/vm.js";
import { PAGE_SIZE } from "../../memory/layout.js";
import { countPages } from "../../memory/written-pages.js";
import { newId, stateOf } from "../create.js";
import { hashImages } from "../image-hash.js";
import { piecesOf } from "../memory-pieces.js";
import { addressText, type MigrationAddress } from "./address.js";
import { refuseShares } from "../refuse-shares.js";
import { MigrationConnection, RefusedError } from "./connection.js";
import { MIGRATION_FORMAT, MIGRATION_VERSION } from "./frames.js";
import { checkHello } from "./hello.js";
import { allPages, presentPages, sendPages, type SentPages } from "./page-stream.js";

export interface MigrationRound extends SentPages {
  readonly ms: number;
}

export interface Migration {
  /** The guest rested for it, `ms`: from the request to stop to the other end's word that it goes on. */
  readonly stopMs: number;
  readonly totalMs: number;
  /** Of memory. */
  readonly bytes: number;
  /** The last one is that of the stop. */
  readonly rounds: readonly MigrationRound[];
}

const CONNECT_MS = 10_000;
/** It may have a kernel's worth of code to load. */
const READY_MS = 60_000;
const SYNC_MS = 60_000;
/** The guest rests. */
const PREPARED_MS = 15_000;
const RUNNING_MS = 15_000;
/** What is left is sent within this when the guest is stopped, as fast as before: `ms`. */
const LAST_ROUND_MS = 10;
const MAX_ROUNDS = 20;
/** Rounds in a row that leave no less than this part of the one before: the guest writes faster than it is copied. */
const PROGRESS = 0.75;
const MAX_IDLE_ROUNDS = 3;
/** A receiver that has died holds its disks for a moment longer: `ms`. */
const TAKE_BACK_MS = 2000;
const TAKE_BACK_STEP_MS = 20;

/**
 * Resolves when the guest goes on at the other end; the VM here is paused then, for good: stop it. Rejects with
 * HostError, SnapshotError or VmStateError: then it is as it was before, but where nobody knows whether the other end has begun:
 * the message says so, and it stays paused.
 */
export async function migrateVm(vm: Vm, address: MigrationAddress): Promise<Migration> {
  const name = addressText(address);
  return vm.whileOpen(async (open) => {
    refuseShares(open.config);
    const images = hashImages(vm.images);
    const socket = await connect(address);
    const connection = new MigrationConnection(socket, "receiver", name);
    try {
      return await new Sender(vm, open, connection, address).run(images);
    } catch (error) {
      await connection.refuse(error instanceof Error ? error.message : String(error));
      throw error;
    } finally {
      await connection.end();
    }
  });
}

async function connect(address: MigrationAddress): Promise<Socket> {
  const socket =
    address.kind === "unix"
      ? createConnection({ path: address.path })
      : createConnection({ host: address.host, port: address.port });
  await new Promise<void>((resolve, reject) => {
    const failed = (why: string, cause?: unknown): void => {
      socket.destroy();
      reject(
        new HostError(`${addressText(address)}: ${why}`, {
          cause,
          cure: "start the other end first: vmlet snapshot receive ADDRESS",
        }),
      );
    };
    const timer = setTimeout(() => failed(`nobody answers within ${String(CONNECT_MS / 1000)} s`), CONNECT_MS);
    socket.once("connect", () => {
      clearTimeout(timer);
      socket.removeAllListeners("error");
      resolve();
    });
    socket.once("error", (error: NodeJS.ErrnoException) => {
      clearTimeout(timer);
      failed(`nobody answers: ${errnoText(error.code ?? "")}`, error);
    });
  });
  return socket;
}

class Sender {
  readonly #vm: Vm;
  readonly #open: OpenMemory;
  readonly #connection: MigrationConnection;
  readonly #address: MigrationAddress;
  readonly #rounds: MigrationRound[] = [];

  constructor(vm: Vm, open: OpenMemory, connection: MigrationConnection, address: MigrationAddress) {
    this.#vm = vm;
    this.#open = open;
    this.#connection = connection;
    this.#address = address;
  }

  async run(images: ReturnType<typeof hashImages>): Promise<Migration> {
    const started = performance.now();
    const { config, quirks } = this.#open;
    await this.#say("hello", { format: MIGRATION_FORMAT, version: MIGRATION_VERSION, vmlet: VERSION });
    checkHello(await this.#connection.receive(READY_MS, "hello"));
    const { cpu, kernel } = hostFacts();
    await this.#say("offer", { config: describeConfig(config), host: { cpu, kernel, software: quirks !== undefined } });
    await this.#connection.receive(READY_MS, "ready");
    const watch = this.#vm.watchPages();
    try {
      const left = await this.#copyWhileRunning(() => watch.take());
      const stopped = performance.now();
      await this.#handOver(images, () => merge(left, watch.take()));
      const now = performance.now();
      const bytes = this.#rounds.reduce((sum, round) => sum + round.bytes, 0);
      return { stopMs: now - stopped, totalMs: now - started, bytes, rounds: this.#rounds };
    } finally {
      watch.close();
    }
  }

  #say(kind: "hello" | "offer" | "state", value: unknown): Promise<void> {
    return this.#connection.send(kind, Buffer.from(JSON.stringify(value)));
  }

  /** Pages that are left when it is time to stop. */
  async #copyWhileRunning(take: () => Uint32Array): Promise<Uint32Array> {
    const { memory, saved } = this.#open;
    const [ram] = piecesOf({ memory, command: undefined, memoryFiles: saved?.source.files ?? [] });
    if (ram === undefined) throw new Error("A guest has RAM");
    let pages = presentPages(ram);
    let idle = 0;
    let before = Infinity;
    for (let round = 0; ; round++) {
      const start = performance.now();
      const sent = await sendPages(this.#connection, ram, 0, pages, round > 0);
      await this.#connection.send("sync");
      await this.#connection.receive(SYNC_MS, "synced");
      const ms = performance.now() - start;
      this.#rounds.push({ ...sent, ms });
      this.#checkGuest();
      pages = take();
      const count = countPages(pages);
      idle = count >= before * PROGRESS ? idle + 1 : 0;
      before = count;
      // Of all so far: a short round says little.
      const total = this.#rounds.reduce(
        (sum, { bytes, ms: each }) => ({ bytes: sum.bytes + bytes, ms: sum.ms + each }),
        {
          bytes: 0,
          ms: 0,
        },
      );
      const expectedMs = (count * PAGE_SIZE * total.ms) / Math.max(total.bytes, PAGE_SIZE);
      if (expectedMs <= LAST_ROUND_MS || idle >= MAX_IDLE_ROUNDS || round + 1 >= MAX_ROUNDS) return pages;
    }
  }

  #checkGuest(): void {
    const { state } = this.#vm;
    if (state !== "running" && state !== "paused") throw new SnapshotError("The guest has ended while it was moved");
  }

  async #handOver(images: ReturnType<typeof hashImages>, last: () => Uint32Array): Promise<void> {
    const vm = this.#vm;
    const wasPaused = vm.state === "paused";
    let fate: "here" | "moved" | "unknown" = "here";
    try {
      await vm.whilePaused(async (capture) => {
        const start = performance.now();
        const [ram, channel] = piecesOf(capture);
        if (ram === undefined) throw new Error("A guest has RAM");
        const pages = last();
        const sent = await sendPages(this.#connection, ram, 0, pages, true);
        const channelSent =
          channel === undefined
            ? { pages: 0, bytes: 0 }
            : await sendPages(this.#connection, channel, ram.length, allPages(channel.length), false);
        const state = stateOf(capture, newId(), images);
        let hasLetGo = false;
        try {
          // Before the other end opens them.
          vm.letGo();
          hasLetGo = true;
          await this.#say("state", state);
          await this.#connection.receive(PREPARED_MS, "prepared");
          this.#checkGuest();
          fate = "unknown";
          await this.#connection.deliver("commit");
          await this.#connection.receive(RUNNING_MS, "running");
          fate = "moved";
        } catch (error) {
          if (fate === "unknown" && this.#hasSurelyFailed(error)) fate = "here";
          if (fate === "unknown") throw this.#doubt(error);
          if (hasLetGo) await this.#takeBack(error);
          throw error;
        }
        this.#rounds.push({
          pages: sent.pages + channelSent.pages,
          bytes: sent.bytes + channelSent.bytes,
          ms: performance.now() - start,
        });
      });
    } catch (error) {
      if (error instanceof LostDiskError) fate = "unknown";
      throw error;
    } finally {
      if (fate === "here" && !wasPaused && isPaused(vm)) vm.resume();
    }
  }

  /**
   * After the guest was given away: the other end says "running" before it lets it run. One that has refused, or has closed
   * in order without having said it, has not; one that a network has cut off may have.
   */
  #hasSurelyFailed(error: unknown): boolean {
    const isGone = this.#connection.hasEnded || (this.#address.kind === "unix" && this.#connection.isClosed);
    return error instanceof RefusedError || isGone;
  }

  #doubt(cause: unknown): SnapshotError {
    const why = cause instanceof Error ? cause.message : String(cause);
    return new SnapshotError(
      `${why}, after the guest was given away: whether it runs there is not known; here it stays paused`,
      { cause, cure: "look there; if it does not run, let it go on here: vmlet resume SOCKET" },
    );
  }

  async #takeBack(cause: unknown): Promise<void> {
    for (let waited = 0; ; waited += TAKE_BACK_STEP_MS) {
      try {
        this.#vm.takeBack();
        return;
      } catch (error) {
        if (!(error instanceof DiskError)) throw error;
        const why = cause instanceof Error ? cause.message : String(cause);
        if (waited >= TAKE_BACK_MS) throw new LostDiskError(`${why}; and ${error.message}: the guest stays paused`);
        await new Promise((resolve) => setTimeout(resolve, TAKE_BACK_STEP_MS));
      }
    }
  }
}

/** Somebody else has a disk of the guest: it cannot go on. */
class LostDiskError extends SnapshotError {}

function isPaused({ state }: Vm): boolean {
  return state === "paused";
}

function merge(a: Uint32Array, b: Uint32Array): Uint32Array {
  return a.map((bits, index) => bits | (b[index] ?? 0));
}
