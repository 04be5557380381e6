// A VM that runs programs, in the lab: its monitor runs there (vmm/cli/guest-in-lab.ts), its agent is spoken to from here, byte by
// byte through the lab's port. So whatever goes by the agent is as anywhere: programs, terminals, files, several at once.
import { AgentConnection } from "../agent/connection.js";
import type { AgentTransport } from "../agent/transport.js";
import type { ResolvedConfig } from "../config/types.js";
import { ConfigError, LabError } from "../errors.js";
import { buildMissing } from "../host/first-use.js";
import type { PreparedImage } from "../image/types.js";
import type { LabResult } from "../lab/command.js";
import { GUEST_COMMAND } from "../lab/environment.js";
import { configInLab, labOfGuest } from "../lab/guest-inputs.js";
import { LabSession } from "../lab/session.js";
import { openDisks } from "../virtio/attach/disks.js";
import { closeDiskFile } from "../virtio/backends/disk-file.js";
import type { ControlledVm } from "./guest-controls.js";
import { guestConfig } from "./guest-config.js";
import { setUpGuest } from "./guest-set-up.js";
import { PLAIN_START } from "./program-start.js";
import type { VmSpec } from "./vm-spec.js";
import type { RunningWorkload, WorkloadHooks } from "./workload.js";

/** A guest boots before its agent's first word, and every instruction is interpreted twice, `ms`. */
const HELLO_LIMIT_MS = 180_000;
const SILENCE_MS = 60_000;
const ANSWER_LIMIT_MS = 60_000;
/** Of what the monitor and the guest's console say there, for an error, `characters`. */
const KEPT_WORDS = 4096;

export class LabWorkload implements RunningWorkload {
  readonly vm: ControlledVm;
  readonly agent: AgentConnection;
  readonly isRestored = false;
  readonly ended: Promise<{ readonly exitStatus: number | undefined }>;
  readonly #session: LabSession;
  readonly #transport: LabTransport;
  #words = "";
  #hasEnded = false;

  private constructor(session: LabSession, config: ResolvedConfig) {
    this.#session = session;
    this.#transport = new LabTransport(session);
    this.agent = new AgentConnection(this.#transport, {
      helloLimitMs: HELLO_LIMIT_MS,
      silenceMs: SILENCE_MS,
      answerLimitMs: ANSWER_LIMIT_MS,
    });
    const result = session.run({
      argv: [GUEST_COMMAND, JSON.stringify(configInLab(config))],
      isVmlet: true,
      onOutput: (bytes, stream) => {
        if (stream === "stdout") this.#transport.receive(bytes);
        else this.#words = (this.#words + bytes.toString("latin1")).slice(-KEPT_WORDS);
      },
    });
    this.ended = this.#end(result);
    // Whoever waits for it hears of it; nobody has to.
    this.ended.catch(() => undefined);
    this.vm = this.#controls();
  }

  /**
   * Rejects with ConfigError, DiskError and LabError, and with AgentError for a guest that does not get as far as its agent.
   * `signal` ends the wait; nothing is left then.
   */
  static async start(spec: VmSpec, hooks: WorkloadHooks, signal?: AbortSignal): Promise<LabWorkload> {
    signal?.throwIfAborted();
    const volumes: PreparedImage[] = [];
    if (spec.volumes.length > 0) hooks.log("the lab has copies of the volumes, as they are now");
    try {
      for (const { hostPath } of spec.volumes) volumes.push(await copyOf(hostPath, signal));
      return await LabWorkload.#start(spec, volumes, hooks, signal);
    } catch (error) {
      for (const volume of volumes) volume.release();
      throw error;
    }
  }

  static async #start(
    spec: VmSpec,
    volumes: readonly PreparedImage[],
    hooks: WorkloadHooks,
    signal: AbortSignal | undefined,
  ): Promise<LabWorkload> {
    const config = guestConfig(
      spec,
      undefined,
      volumes.map(({ manifestPath }) => manifestPath),
    );
    await buildMissing([config.kernel, config.initrd], signal);
    // Checked here, so that messages have the user's own paths; QEMU takes the same locks itself.
    for (const file of openDisks(config.disks)) closeDiskFile(file);
    hooks.boots?.();
    const session = await LabSession.start(labOfGuest(config), {
      ...(signal === undefined ? {} : { abort: signal }),
      onNotice: hooks.log,
    });
    const workload = new LabWorkload(session, config);
    void workload.ended
      .catch(() => undefined)
      .then(() => {
        for (const volume of volumes) volume.release();
      });
    const stop = (): void => {
      void session.close();
    };
    signal?.addEventListener("abort", stop, { once: true });
    try {
      await setUpGuest(workload.agent, spec, false);
      hooks.begin?.(workload.agent, PLAIN_START);
      return workload;
    } catch (error) {
      await workload.leave();
      signal?.throwIfAborted();
      throw workload.#explained(error);
    } finally {
      signal?.removeEventListener("abort", stop);
    }
  }

  readonly save = (): Promise<never> => Promise.reject(refused("saved"));

  async leave(): Promise<void> {
    this.agent.close();
    await this.#session.close();
    await this.ended.catch(() => undefined);
  }

  async #end(result: Promise<LabResult>): Promise<{ readonly exitStatus: number | undefined }> {
    try {
      const { status } = await result;
      return { exitStatus: status };
    } catch (error) {
      this.#transport.cause = error;
      throw error;
    } finally {
      this.#hasEnded = true;
      this.#transport.ended();
    }
  }

  /** With what was said there before the end. */
  #explained(error: unknown): unknown {
    const words = this.#words.trim();
    if (!this.#hasEnded || words === "") return error;
    return new LabError(`The VM has ended in the lab before it could be used:\n${words}`, { cause: error });
  }

  #controls(): ControlledVm {
    const state = (): ControlledVm["state"] => (this.#hasEnded ? "stopped" : "running");
    const session = this.#session;
    return {
      get state() {
        return state();
      },
      stop: () => {
        void session.close();
      },
      pause: () => Promise.reject(refused("paused")),
      resume: () => {
        throw refused("paused");
      },
      setBalloon: () => {
        throw refused("given a balloon");
      },
    };
  }
}

/** A folder as it is now: the lab has nothing of this host but disks. */
async function copyOf(hostPath: string, signal: AbortSignal | undefined): Promise<PreparedImage> {
  const { prepareDirectory } = await import("../image/index.js");
  return prepareDirectory(hostPath, signal === undefined ? {} : { signal });
}

function refused(what: string): ConfigError {
  return new ConfigError([`A VM in the lab cannot be ${what}: use a host with a /dev/kvm`]);
}

/** The monitor's standard input and output in there. */
class LabTransport implements AgentTransport {
  onBytes: ((bytes: Uint8Array) => void) | undefined;
  onDrain: (() => void) | undefined;
  onClose: ((cause?: unknown) => void) | undefined;
  /** Why the lab has gone, if it did not end as it should. */
  cause: unknown;
  readonly #session: LabSession;
  #isClosed = false;

  constructor(session: LabSession) {
    this.#session = session;
  }

  write(bytes: Uint8Array): boolean {
    if (this.#isClosed) return true;
    const isSent = this.#session.input(bytes.slice());
    if (!isSent) {
      this.#session.onceDrained(() => {
        if (!this.#isClosed) this.onDrain?.();
      });
    }
    return isSent;
  }

  close(): void {
    this.#isClosed = true;
  }

  receive(bytes: Buffer): void {
    if (!this.#isClosed) this.onBytes?.(Buffer.from(bytes));
  }

  ended(): void {
    if (!this.#isClosed) this.onClose?.(this.cause);
  }
}
