// The program from its command line to its exit code: log, metrics, socket, the guest, signals, the end.
import { Fault } from "./fault.js";
import { ApiServer, type Answer, type ApiRequest } from "./api-server.js";
import type { FirecrackerOptions } from "./command-line.js";
import { Controller } from "./controller.js";
import * as exits from "./exit-codes.js";
import type { Guest } from "./guest.js";
import { Logger } from "./logger.js";
import { METRICS_INTERVAL_MS, MetricsWriter } from "./metrics.js";
import { parseRequest } from "./requests.js";
import { LOG_LEVEL } from "./schemas.js";
import { Settings } from "./settings.js";
import type { Machine } from "./machine.js";
import { FIRECRACKER_VERSION } from "./version.js";

/** What the process has that this program is one of. */
export interface ProcessSide {
  /** From now on standard input is the guest's; the result ends that. */
  openInput(input: (bytes: Uint8Array) => number): { resume(): void; close(): void };
  /** Standard error. */
  complain(line: string): void;
  /** Loads the part that runs guests. */
  loadMachine(options: ConstructorParameters<typeof Machine>[0]): Promise<Machine>;
  /** Calls back for signals that end a program; the result gives them their default actions back. */
  onSignals(callback: (number: number) => void): Promise<() => void>;
  /** Calls back for those that have come by now. */
  deliverSignals(): void;
}

/** Without a request, what guests need is loaded after so many `ms`. */
const WARM_UP_MS = 100;
/** How long a guest that was stopped may take, `ms`. */
const STOP_MS = 1000;

export async function serveFirecracker(options: FirecrackerOptions, side: ProcessSide): Promise<number> {
  const program = new Program(options, side);
  try {
    return await program.run();
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    program.logger.log("error", error.message);
    side.complain(error.message);
    return error.exitCode;
  }
}

/** The program cannot go on. */
class Failure extends Error {
  readonly exitCode: number;

  constructor(message: string, exitCode: number) {
    super(message);
    this.exitCode = exitCode;
  }
}

class Program {
  readonly logger: Logger;
  readonly #options: FirecrackerOptions;
  readonly #side: ProcessSide;
  readonly #metrics: MetricsWriter;
  readonly #settings: Settings;
  readonly #controller: Controller;
  #machine: Promise<Machine> | undefined;
  #loaded: Machine | undefined;
  #isDying = false;
  #timer: NodeJS.Timeout | undefined;
  /** Until it is done or under way. */
  #warmUpTimer: NodeJS.Timeout | undefined;
  /** Settles with the exit code. */
  #end: (exitCode: number) => void = () => undefined;
  readonly #ended = new Promise<number>((resolve) => (this.#end = resolve));

  constructor(options: FirecrackerOptions, side: ProcessSide) {
    this.#options = options;
    this.#side = side;
    this.logger = new Logger(options.id, `Running Firecracker v${FIRECRACKER_VERSION}`);
    this.#metrics = new MetricsWriter(this.logger);
    this.#settings = new Settings({ maxBytes: options.mmdsBytes });
    this.#controller = new Controller({
      id: options.id,
      settings: this.#settings,
      logger: this.logger,
      metrics: this.#metrics,
      starter: {
        start: async (settings) => (await this.#load()).start(settings),
        load: async (params, settings) => (await this.#load()).load(params, settings),
        check: async (feature) => (await this.#load()).check(feature),
      },
      started: (guest) => {
        this.#started(guest);
      },
    });
  }

  async run(): Promise<number> {
    const { configFile, hasApi } = this.#options;
    await this.#configure();
    this.logger.log("info", `Running Firecracker v${FIRECRACKER_VERSION}`);
    let signal: number | undefined;
    const server = hasApi ? this.#listen() : undefined;
    let removeHandlers: (() => void) | undefined;
    try {
      if (configFile !== undefined) await this.#startFromFile(configFile);
      removeHandlers = await this.#side.onSignals((number) => {
        signal ??= number;
        // Clients see it die as they would see Firecracker, which such a signal ends at once.
        this.#isDying = true;
        server?.abort();
        this.#end(exits.ofSignal(number) ?? exits.EXIT_GENERIC);
      });
      this.#warmUpTimer = setTimeout(() => {
        this.#warmUp();
      }, WARM_UP_MS);
      const exitCode = await this.#ended;
      // The answer to what has ended the guest is on its way.
      if (!this.#isDying) await Promise.race([server?.settled(), later(STOP_MS)]);
      return exitCode;
    } finally {
      clearInterval(this.#timer);
      clearTimeout(this.#warmUpTimer);
      await this.#loaded?.close(STOP_MS);
      this.#metrics.flush();
      server?.close();
      if (signal !== undefined && exits.ofSignal(signal) === undefined) {
        removeHandlers?.();
        // As the signal would have ended it without us.
        process.kill(process.pid, signal);
        await later(STOP_MS);
      }
    }
  }

  async #configure(): Promise<void> {
    const { logger, metricsPath, metadata, id, startTimeUs, startCpuUs, parentCpuUs } = this.#options;
    if (logger.level !== null && !new RegExp(LOG_LEVEL.pattern).test(logger.level)) {
      throw new Failure(`--level ${logger.level}: not ${LOG_LEVEL["x-expected"]}`, exits.EXIT_BAD_CONFIGURATION);
    }
    this.#orFail("", exits.EXIT_GENERIC, () => {
      this.logger.configure(logger);
      if (metricsPath !== undefined) this.#metrics.configure({ metrics_path: metricsPath }, id);
    });
    if (startTimeUs !== undefined) {
      const sinceUs = performance.timeOrigin * 1000 + performance.now() * 1000 - startTimeUs;
      this.#metrics.store("api_server", "process_startup_time_us", Math.max(0, Math.round(sinceUs)));
      const { user, system } = process.cpuUsage();
      const cpuUs = user + system - startCpuUs + parentCpuUs;
      this.#metrics.store("api_server", "process_startup_time_cpu_us", Math.max(0, cpuUs));
    }
    if (metadata === undefined) return;
    const { readMetadata } = await import("./config-file.js");
    this.#orFail("The metadata cannot be taken: ", exits.EXIT_GENERIC, () => {
      this.#settings.mmds.put(readMetadata(metadata));
    });
    this.logger.log("info", "Successfully added metadata to mmds from file");
  }

  #orFail<Result>(what: string, exitCode: number, task: () => Result): Result {
    try {
      return task();
    } catch (error) {
      if (error instanceof Fault) throw new Failure(`${what}${error.message}`, exitCode);
      throw error;
    }
  }

  #listen(): ApiServer {
    const { socket, maxBodyBytes } = this.#options;
    try {
      return ApiServer.listen({
        path: socket,
        maxBodyBytes,
        serve: (request) => this.#serve(request),
        refused: (why) => {
          this.logger.log("error", `A request is refused: ${why}`);
        },
      });
    } catch (error) {
      if ((error as { readonly code?: string }).code !== "ERR_HOST") throw error;
      throw new Failure((error as Error).message, exits.EXIT_GENERIC);
    }
  }

  async #startFromFile(path: string): Promise<void> {
    const { applyConfig, readConfigFile } = await import("./config-file.js");
    this.#orFail("Configuration for VMM from one single json failed: ", exits.EXIT_BAD_CONFIGURATION, () => {
      const targets = { settings: this.#settings, logger: this.logger, metrics: this.#metrics, id: this.#options.id };
      applyConfig(readConfigFile(path), targets);
    });
    try {
      await this.#controller.handle({ name: "action", body: { action_type: "InstanceStart" } });
    } catch (error) {
      if (!(error instanceof Fault)) throw error;
      const message = `Could not Start MicroVM from one single json: ${error.message}`;
      throw new Failure(message, exits.EXIT_BAD_CONFIGURATION);
    }
    this.logger.log("info", "Successfully started microvm that was configured from one single json");
  }

  /** Never rejects; never resolves where there is nobody to answer any more. */
  async #serve(request: ApiRequest): Promise<Answer> {
    const { method, target, body } = request;
    this.#side.deliverSignals();
    if (this.#isDying) return new Promise(() => undefined);
    this.logger.log("debug", `${method} ${target} with ${String(body.length)} bytes`);
    const begin = performance.now();
    const group = GROUPS[method];
    this.#warmUp();
    const name = (target.split("/")[1] ?? "").replaceAll("-", "_") || "instance_info";
    try {
      const asked = parseRequest(method, target, body);
      if (group !== undefined) this.#metrics.count(group, `${name}_count`);
      const reply = await this.#controller.handle(asked);
      if (asked.deprecated !== undefined) {
        this.#metrics.count("deprecated_api", "deprecated_http_api_calls");
        this.logger.log("warn", asked.deprecated);
      }
      if (PREPARE.has(asked.name)) this.#prepare();
      const us = Math.round((performance.now() - begin) * 1000);
      const latency = LATENCIES[asked.name];
      if (latency !== undefined) this.#metrics.store("latencies_us", latency, us);
      this.logger.log("info", `${method} ${target}: done in ${String(us)} us`);
      const isDeprecated = asked.deprecated !== undefined;
      return reply === undefined ? { status: 204, isDeprecated } : { status: 200, body: reply, isDeprecated };
    } catch (error) {
      if (group !== undefined && KNOWN_FAILS.has(name)) this.#metrics.count(group, `${name}_fails`);
      const fault = this.#faultOf(error);
      this.logger.log("error", `${method} ${target}: ${String(fault.status)}: ${fault.message}`);
      return { status: fault.status, body: { fault_message: fault.message } };
    }
  }

  #faultOf(error: unknown): Fault {
    if (error instanceof Fault) return error;
    this.logger.log("error", `internal error: ${error instanceof Error ? (error.stack ?? "") : String(error)}`);
    return new Fault("Internal error: the log has more", 500);
  }

  #load(): Promise<Machine> {
    this.#machine ??= this.#side
      .loadMachine({
        logger: this.logger,
        metrics: this.#metrics,
        openInput: (input) => this.#side.openInput(input),
        hasBootTimer: this.#options.hasBootTimer,
      })
      .then((machine) => (this.#loaded = machine));
    return this.#machine;
  }

  /** Loads what a start would have to wait for, while nobody waits: after the first answer. */
  #warmUp(): void {
    if (this.#warmUpTimer === undefined) return;
    clearTimeout(this.#warmUpTimer);
    this.#warmUpTimer = undefined;
    setImmediate(() => {
      this.#load()
        .then((machine) => machine.warmUp(this.#settings.machine.vcpu_count))
        // It is tried again, and said, when it matters.
        .catch(() => undefined);
    });
  }

  /** Once the answer is on its way. */
  #prepare(): void {
    setImmediate(() => {
      this.#load()
        .then((machine) => {
          machine.prepare(this.#settings);
        })
        // A start says it.
        .catch(() => undefined);
    });
  }

  #started(guest: Guest): void {
    this.#metrics.flush();
    this.#timer = setInterval(() => {
      void Promise.resolve(guest.refresh?.())
        .catch(() => undefined)
        .then(() => {
          this.#metrics.flush();
        });
    }, METRICS_INTERVAL_MS);
    guest.ended.then(
      ({ outcome, registers }) => {
        if (this.#isDying) return;
        const isFault = outcome === "triple-fault";
        const exitCode = isFault ? exits.EXIT_GENERIC : exits.EXIT_OK;
        if (isFault) this.logger.log("error", `The guest has ended in a triple fault: ${registers ?? ""}`);
        else this.logger.log("info", `The guest has ended: ${outcome}`);
        this.logger.log(
          "info",
          exitCode === 0 ? "Firecracker exiting successfully. exit_code=0" : "Firecracker exiting",
        );
        this.#end(exitCode);
      },
      (error: unknown) => {
        this.logger.log("error", `The guest has failed: ${error instanceof Error ? error.message : String(error)}`);
        this.#end(exits.EXIT_GENERIC);
      },
    );
  }
}

/** What decides what a guest is made of. */
const PREPARE: ReadonlySet<string> = new Set([
  "setBootSource",
  "setMachine",
  "updateMachine",
  "setCpuConfig",
  "setDrive",
  "setNet",
  "setVsock",
  "setBalloon",
  "setEntropy",
  "setMmdsConfig",
]);

const GROUPS: Readonly<Record<string, string>> = {
  GET: "get_api_requests",
  PUT: "put_api_requests",
  PATCH: "patch_api_requests",
};

/** A name that a client has made up is none of the metrics'. */
const KNOWN_FAILS = new Set([
  "actions",
  "balloon",
  "boot_source",
  "cpu_config",
  "drives",
  "entropy",
  "logger",
  "machine_config",
  "metrics",
  "mmds",
  "network_interfaces",
  "pmem",
  "serial",
  "snapshot",
  "vm",
  "vsock",
]);

const LATENCIES: Readonly<Record<string, string>> = {
  createSnapshot: "full_create_snapshot",
  loadSnapshot: "load_snapshot",
  setVmState: "pause_vm",
};

function later(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms).unref());
}
