// The process that stands for a container of a pod on the host: its VM is that of the pod's sandbox, in which it has its program.
// Its streams are the program's, and so is its exit code.
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Agent } from "../agent/agent.js";
import type { AgentConnection } from "../agent/connection.js";
import { HostError } from "../errors.js";
import { EXIT_SIGNAL_BASE } from "../host/exit-codes.js";
import { connectAgent } from "../sdk/agent-socket.js";
import { watchCreate, type Controlled } from "./control.js";
import { EarlySignals } from "./early-signals.js";
import { startFailure } from "./exec-failure.js";
import { hasKilledInGroup } from "./guest-group.js";
import type { MonitorReply, MonitorRequest } from "./monitor-messages.js";
import { OutOfMemory } from "./out-of-memory.js";
import { PhaseFile } from "./phase-file.js";
import { joinShare } from "./pod-share.js";
import { holdTerminal, StandardProgram } from "./standard-program.js";
import { AGENT_SOCKET, type Container, type ContainerRecord } from "./state.js";

const SIGKILL = 9;
const EXIT_FAILURE = 1;
/** From SIGKILL to the program's end, in a guest that works, `ms`. */
const KILL_LIMIT_MS = 5000;
/** For one file of the guest's, `ms`. */
const LOOK_LIMIT_MS = 2000;

export class PodMember implements Controlled {
  readonly #container: Container;
  readonly #record: ContainerRecord;
  readonly #sandbox: Container;
  readonly #end: (exitCode: number) => void;
  #failure: HostError | undefined;
  #agent: AgentConnection | undefined;
  #program: StandardProgram | undefined;
  #early: EarlySignals | undefined;
  #isStarting = false;

  constructor(container: Container, record: ContainerRecord, end: (exitCode: number) => void) {
    this.#container = container;
    this.#record = record;
    this.#sandbox = container.vmOwner(record);
    this.#end = end;
  }

  /** Its files are where the VM has them from then on. */
  begin(): void {
    holdTerminal();
    watchCreate(this.#container, this.#record, {
      isKilled: () => {
        this.#end(EXIT_SIGNAL_BASE + SIGKILL);
      },
      isDone: () => undefined,
    });
    try {
      const { monitor } = this.#sandbox.known;
      const folder = join(this.#sandbox.share, this.#container.id);
      joinShare(monitor?.pid ?? 0, folder, this.#record.shared);
    } catch (error) {
      // For `start` to say.
      this.#failure = error instanceof HostError ? error : new HostError(String(error), { cause: error });
    }
  }

  async leave(): Promise<void> {
    const isOutOfMemory = await this.#hasRunOutOfMemory();
    this.#agent?.close();
    if (isOutOfMemory) await OutOfMemory.prepare(this.#record.cgroups)?.raise();
  }

  /** By the limit of its own that the guest's kernel keeps. */
  async #hasRunOutOfMemory(): Promise<boolean> {
    const limit = this.#container.config.linux?.resources?.memory?.limit ?? 0;
    if (this.#agent === undefined || limit <= 0) return false;
    const answer = hasKilledInGroup(new Agent(this.#agent), this.#container.id).catch(() => false);
    // A guest that does not answer has ended, or is about to.
    const late = sleep(LOOK_LIMIT_MS, false, { ref: false });
    return Promise.race([answer, late]);
  }

  async answer(request: MonitorRequest, reply: (reply: MonitorReply) => void): Promise<void> {
    if ("start" in request) await this.#start(reply);
    else if ("signal" in request) {
      reply({ ok: true });
      this.signal(request.signal);
    } else if ("processes" in request) {
      const processes = await new Agent(this.#running()).guest.processes();
      reply({
        ok: true,
        processes: processes.map(({ pid, parent, command }) => ({ pid, parent, command: command.join(" ") })),
      });
    } else throw new HostError("a single container of a pod cannot be paused");
  }

  #running(): AgentConnection {
    if (this.#agent === undefined || this.#program === undefined) throw new HostError("the container does not run");
    return this.#agent;
  }

  signal(number: number): void {
    if (this.#program === undefined) {
      this.#end(EXIT_SIGNAL_BASE + number);
      return;
    }
    if (number !== SIGKILL) {
      this.#early?.send(number);
      return;
    }
    this.#program.signal(number);
    setTimeout(() => {
      this.#end(EXIT_SIGNAL_BASE + SIGKILL);
    }, KILL_LIMIT_MS).unref();
  }

  async #start(reply: (reply: MonitorReply) => void): Promise<void> {
    if (this.#isStarting) throw new HostError("cannot start an already running container");
    this.#isStarting = true;
    try {
      if (this.#failure !== undefined) throw this.#failure;
      const { process } = this.#container.config;
      if (process === undefined) throw new HostError("config.json has no process: there is nothing to start");
      this.#agent = await connectAgent(this.#sandbox.shortPath(AGENT_SOCKET));
      const { namespaces, joined, group, steps, filter } = this.#record;
      const program = new StandardProgram(this.#agent, process, {
        steps: [...group, ...steps, ...filter],
        made: namespaces,
        ...(joined === 0 ? {} : { join: this.#sandbox.phase?.guestPid ?? 0, joined }),
        makeCwd: true,
      });
      const guestPid = await program.started;
      this.#program = program;
      this.#early = new EarlySignals(this.#agent, guestPid, (number) => {
        program.signal(number);
      });
      PhaseFile.make(this.#container).write({ status: "running", guestPid });
      reply({ ok: true });
      program.onEnd(this.#end);
    } catch (error) {
      reply({ error: startFailure(error) });
      this.#end(EXIT_FAILURE);
    }
  }
}
