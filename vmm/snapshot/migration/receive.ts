// The other end of a migration: takes a guest's memory and state, makes a VM of them, and lets it run once the sender has
// given it away. Whoever sends may be anybody that can connect.
import { createServer, type Server, type Socket } from "node:net";
import { totalmem } from "node:os";
import { resolveDescribed } from "../../config/describe.js";
import type { ResolvedConfig, VmConfig } from "../../config/types.js";
import { HostError, SnapshotError, VmmError } from "../../errors.js";
import { errnoText } from "../../host/errno-text.js";
import { VERSION } from "../../host/version.js";
import type { BuildOptions } from "../../machine/builder.js";
import type { VmHost } from "../../machine/host-callbacks.js";
import type { Vm } from "../../machine/vm.js";
import { CommandPages } from "../../memory/command-pages.js";
import { MappedGuestMemory } from "../../memory/guest-memory.js";
import { MIB } from "../../memory/layout.js";
import { FilledMemory } from "../../memory/saved-memory.js";
import { listenForOwner } from "../../virtio/backends/unix-listener.js";
import { overridden, type RestoreOverrides } from "../overrides.js";
import { refuseShares } from "../refuse-shares.js";
import { OpenSnapshot } from "../restore.js";
import { readingState } from "../state-file.js";
import { addressText, type MigrationAddress } from "./address.js";
import { MigrationConnection } from "./connection.js";
import { MIGRATION_FORMAT, MIGRATION_VERSION, ProtocolError } from "./frames.js";
import { checkHello, readJson } from "./hello.js";
import { PageSink } from "./page-stream.js";

/** A program that connects and is no vmlet. */
const HELLO_MS = 10_000;
/** Between two frames. */
const FRAME_MS = 60_000;
/** The sender waits for us, so its word comes soon. */
const COMMIT_MS = 30_000;
const MAX_TEXT = 1000;
/** Connections that wait for the one before them. */
const MAX_WAITING = 16;

export interface ReceiveOptions {
  readonly overrides?: RestoreOverrides | undefined;
  /** This host's KVM emulates kernel code. */
  readonly software: boolean;
  /** Done while the guest's memory has not come yet: what is loaded then does not keep the guest waiting. */
  readonly prepare?: ((config: ResolvedConfig) => Promise<void>) | undefined;
  /** Somebody has connected, and was no sender. */
  readonly ignored?: ((why: string) => void) | undefined;
}

/** Waits for one guest. */
export class GuestListener {
  /** Where it listens: with the port, if any was fine. */
  readonly address: MigrationAddress;
  readonly #server: Server;
  readonly #removeFile: () => void;
  readonly #sockets: Socket[] = [];
  #wake: () => void = () => undefined;

  private constructor(server: Server, address: MigrationAddress, removeFile: () => void) {
    this.#server = server;
    this.address = address;
    this.#removeFile = removeFile;
    server.on("connection", (socket) => {
      // One at a time: others wait their turn, and find nobody once a guest has come.
      socket.on("error", () => undefined);
      if (this.#sockets.length >= MAX_WAITING) {
        socket.destroy();
        return;
      }
      this.#sockets.push(socket);
      this.#wake();
    });
  }

  /** Rejects with HostError if nobody can listen there. */
  static async listen(address: MigrationAddress): Promise<GuestListener> {
    const server = createServer({ pauseOnConnect: true });
    if (address.kind === "unix") {
      const path = { what: "migration socket", path: address.path };
      return new GuestListener(server, address, listenForOwner(server, path));
    }
    await new Promise<void>((resolve, reject) => {
      server.once("error", (error: NodeJS.ErrnoException) => {
        reject(
          new HostError(`${addressText(address)}: cannot listen: ${errnoText(error.code ?? "")}`, { cause: error }),
        );
      });
      server.listen({ host: address.host, port: address.port }, resolve);
    });
    const bound = server.address();
    const port = typeof bound === "object" && bound !== null ? bound.port : address.port;
    return new GuestListener(server, { ...address, port }, () => undefined);
  }

  /**
   * Takes a guest, up to where it rests at the sender. Rejects with what `overrides` are refused with, or SnapshotError;
   * the sender knows why, and its guest goes on there.
   */
  async accept(options: ReceiveOptions): Promise<ReceivedGuest> {
    for (;;) {
      const socket = await this.#next();
      const connection = new MigrationConnection(socket, "sender", "The sender");
      socket.resume();
      try {
        checkHello(await connection.receive(HELLO_MS, "hello"));
      } catch (error) {
        options.ignored?.(error instanceof Error ? error.message : String(error));
        await connection.refuse("this is no vmlet of the same kind");
        continue;
      }
      this.close();
      return receive(connection, options);
    }
  }

  /** Nobody else can connect. */
  close(): void {
    this.#removeFile();
    this.#server.close();
    for (const socket of this.#sockets.splice(0)) socket.destroy();
  }

  async #next(): Promise<Socket> {
    for (;;) {
      const socket = this.#sockets.shift();
      if (socket !== undefined) return socket;
      await new Promise<void>((resolve) => (this.#wake = resolve));
    }
  }
}

async function receive(connection: MigrationConnection, options: ReceiveOptions): Promise<ReceivedGuest> {
  let memory: FilledMemory | undefined;
  try {
    const hello = { format: MIGRATION_FORMAT, version: MIGRATION_VERSION, vmlet: VERSION };
    await connection.send("hello", Buffer.from(JSON.stringify(hello)));
    const config = readOffer(readJson(await connection.receive(HELLO_MS, "offer")), options);
    await options.prepare?.(config);
    const ram = MappedGuestMemory.map(config.memoryMib * MIB);
    const channel = config.commandChannel ? CommandPages.map() : undefined;
    memory = new FilledMemory(ram, channel);
    const sink = new PageSink(ram, channel);
    await connection.send("ready");
    for (;;) {
      const frame = await connection.receive(FRAME_MS, "pages", "zeros", "sync", "state");
      if (frame.kind === "state") {
        const opened = OpenSnapshot.received(readJson(frame), "The sender's guest", memory);
        return new ReceivedGuest(connection, memory, checkSame(opened, config, options), options.overrides);
      }
      if (frame.kind === "sync") await connection.send("synced");
      else sink.take(frame);
    }
  } catch (error) {
    memory?.close();
    const known = error instanceof ProtocolError ? new SnapshotError(`The sender: ${error.message}`) : error;
    await connection.refuse(reasonOf(known));
    throw known;
  }
}

/** What this host would make of it. Throws SnapshotError for a guest that cannot come. */
function readOffer(offer: ReturnType<typeof readJson>, { overrides = {}, software }: ReceiveOptions): ResolvedConfig {
  return readingState("The sender's guest", () => {
    offer.only(["config", "host"]);
    const host = offer.at("host");
    host.only(["cpu", "kernel", "software"]);
    for (const name of ["cpu", "kernel"]) host.text(name, MAX_TEXT);
    if (host.boolean("software") !== software) {
      throw new SnapshotError(
        software
          ? "The guest runs on hardware virtualization, and this host's KVM emulates kernel code: they show a guest different processors"
          : "The guest runs where KVM emulates kernel code, and this host has hardware virtualization: they show a guest different processors",
      );
    }
    const config = overridden(resolveDescribed(offer.at("config").value as VmConfig), overrides);
    refuseShares(config);
    if (config.memoryMib * MIB > totalmem()) {
      throw new SnapshotError(
        `The guest has ${String(config.memoryMib)} MiB of memory; this host has ${String(Math.floor(totalmem() / MIB))}`,
      );
    }
    return config;
  });
}

/** Memory was made for what was offered: the state is of no other guest. */
function checkSame(opened: OpenSnapshot, offered: ResolvedConfig, { overrides = {} }: ReceiveOptions): OpenSnapshot {
  const { memoryMib, commandChannel } = opened.configWith(overrides);
  if (memoryMib !== offered.memoryMib || commandChannel !== offered.commandChannel) {
    throw new SnapshotError("The sender's guest has another memory than it has offered");
  }
  return opened;
}

/** What goes to the sender, and from there to a terminal. */
function reasonOf(error: unknown): string {
  if (error instanceof VmmError) return error.message;
  return error instanceof Error ? error.message : String(error);
}

/** A guest that rests at the sender, all of which is here. */
export class ReceivedGuest {
  readonly opened: OpenSnapshot;
  readonly config: ResolvedConfig;
  readonly #connection: MigrationConnection;
  readonly #memory: FilledMemory;
  readonly #overrides: RestoreOverrides;

  constructor(
    connection: MigrationConnection,
    memory: FilledMemory,
    opened: OpenSnapshot,
    overrides: RestoreOverrides = {},
  ) {
    this.#connection = connection;
    this.#memory = memory;
    this.opened = opened;
    this.#overrides = overrides;
    this.config = opened.configWith(overrides);
  }

  /** A VM of it; once. It may be started when `takeOver` has resolved. Throws as a restore does; the guest is to be refused then. */
  restore(host: VmHost, options: BuildOptions = {}): Vm {
    return this.opened.restore(host, options, this.#overrides);
  }

  /** Resolves when the guest is ours. Rejects with SnapshotError if it stays where it is: then close the VM, and refuse. */
  async takeOver(): Promise<void> {
    await this.#connection.send("prepared");
    await this.#connection.receive(COMMIT_MS, "commit");
    try {
      // On its way before the guest's first instruction: a sender that finds the end without it goes on.
      await this.#connection.deliver("running");
    } catch {
      // It has given the guest away, whatever has become of it since.
    }
    void this.#connection.end();
  }

  /** The guest goes on where it was. */
  async refuse(error: unknown): Promise<void> {
    this.#memory.close();
    await this.#connection.refuse(reasonOf(error));
  }
}
