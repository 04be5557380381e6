// The agent of a machine's guest (`vmlet.agent` on its command line), for programs that make machines of their own. Its bytes
// take memory that guest and monitor share; a guest whose kernel has no way to that speaks by its terminal.
import { Agent } from "../agent/agent.js";
import { AgentConnection, type ConnectionOptions } from "../agent/connection.js";
import { HelloSearch } from "../agent/hello-search.js";
import type { StartOptions } from "../machine/arguments.js";
import type { VmHost } from "../machine/host-callbacks.js";
import type { Vm } from "../machine/vm.js";
import type { VmExit } from "../machine/vm-exit.js";
import { ChannelTransport } from "./channel-transport.js";

/** What carries the agent's bytes: the command channel, or the machine's terminal (serial line or virtio console). */
export type AgentWay = "channel" | "terminal";

export interface AgentLinkOptions {
  /** Otherwise the one by which the agent says its first word. */
  readonly way?: AgentWay | undefined;
  /** What comes by the terminal while that is not the agent's. */
  readonly terminal?: ((bytes: Uint8Array) => void) | undefined;
  /** Further callbacks of the machine's. */
  readonly host?: Omit<VmHost, "output" | "commandOutput" | "commandError" | "inputRoom" | "commandRoom"> | undefined;
}

export class AgentLink {
  /** The callbacks of the machine: for `createVm`, and for `restore` of a snapshot. */
  readonly host: VmHost;
  readonly #transport = new ChannelTransport();
  readonly #terminal: ((bytes: Uint8Array) => void) | undefined;
  readonly #searches: Readonly<Record<AgentWay, HelloSearch>> = {
    channel: new HelloSearch(),
    terminal: new HelloSearch(),
  };
  #way: AgentWay | undefined;

  constructor({ way, terminal, host = {} }: AgentLinkOptions = {}) {
    this.#way = way;
    this.#terminal = terminal;
    this.host = {
      ...host,
      output: (bytes, done) => {
        this.#receive("terminal", bytes);
        done();
      },
      commandOutput: (bytes, done) => {
        this.#receive("channel", bytes);
        done();
      },
      inputRoom: () => {
        if (this.#way === "terminal") this.#transport.roomAvailable();
      },
      commandRoom: () => {
        if (this.#way !== "terminal") this.#transport.roomAvailable();
      },
    };
  }

  /** By which way the agent speaks; undefined as long as that is not known. */
  get way(): AgentWay | undefined {
    return this.#way;
  }

  /** The agent of the machine, which has not started. What is asked of it waits until it is there. */
  connect(vm: Pick<Vm, "agentInput" | "commandInput" | "input">, options: ConnectionOptions = {}): Agent {
    this.#transport.connect({
      agentInput: (bytes, urgency) => (this.#way === "terminal" ? vm.input(bytes) : vm.agentInput(bytes, urgency)),
    });
    return new Agent(new AgentConnection(this.#transport, options));
  }

  /** As `vm.start`; with the guest's end the connection is over. */
  async start(vm: Pick<Vm, "start">, options?: StartOptions): Promise<VmExit> {
    try {
      return await vm.start(options);
    } finally {
      this.#transport.ended();
    }
  }

  #receive(way: AgentWay, bytes: Uint8Array): void {
    if (this.#way === undefined) {
      const known = this.#searches[way].push(bytes);
      if (known !== undefined) {
        this.#way = way;
        this.#transport.receive(known);
        return;
      }
    } else if (this.#way === way) {
      this.#transport.receive(bytes.slice());
      return;
    }
    if (way === "terminal") this.#terminal?.(bytes);
  }
}
