// Needs: gcc. The guest's agent as an ordinary process of the host: `init agent FD FD`, the program that is PID 1 in a guest.
import { spawn, spawnSync, type ChildProcess } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import type { Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Agent } from "../../vmm/agent/agent.js";
import { AgentConnection, type ConnectionOptions } from "../../vmm/agent/connection.js";
import { SocketTransport } from "../../vmm/agent/socket-transport.js";

/** As guest/init/build has them. */
const FLAGS =
  "-std=gnu11 -Os -ffreestanding -fno-stack-protector -fno-asynchronous-unwind-tables -fno-pie -fcf-protection=none " +
  "-nostdlib -static -no-pie -Wl,--build-id=none -Wl,-z,noseparate-code -Wl,-z,max-page-size=4096 -s";

export interface RealAgent {
  readonly agent: Agent;
  readonly connection: AgentConnection;
  readonly child: ChildProcess;
}

/** Builds the program once; starts it as often as a test likes. */
export class AgentProgram {
  readonly #folder = mkdtempSync(join(tmpdir(), "agent-"));
  readonly #path = join(this.#folder, "init");
  readonly #running = new Set<RealAgent>();
  readonly #wrapper: readonly string[];

  /** `wrapper`: a command that runs the program that its last words name, in surroundings of its own. */
  constructor(wrapper: readonly string[] = []) {
    this.#wrapper = wrapper;
  }

  get path(): string {
    return this.#path;
  }

  /** Why it cannot be had, or undefined. */
  build(): string | undefined {
    if (spawnSync("gcc", ["--version"]).status !== 0) return "no gcc";
    if (!existsSync("guest/init/agent")) return "this init has no agent";
    const { status, stderr } = spawnSync("gcc", [...FLAGS.split(" "), "-o", this.#path, "guest/init/init.c"]);
    if (status !== 0) throw new Error(`guest/init/init.c cannot be compiled: ${stderr.toString()}`);
    return undefined;
  }

  /** A socket that an agent of its own serves. */
  socket(): { readonly socket: Socket; readonly child: ChildProcess } {
    const [program = "", ...words] = this.#wrapper.concat(this.#path, "agent", "3", "3");
    const child = spawn(program, words, { stdio: ["ignore", "inherit", "inherit", "pipe"] });
    return { socket: child.stdio[3] as Socket, child };
  }

  start(options: ConnectionOptions = {}): RealAgent {
    const { socket, child } = this.socket();
    const connection = new AgentConnection(new SocketTransport(socket), options);
    const running = { agent: new Agent(connection), connection, child };
    this.#running.add(running);
    return running;
  }

  async stop(running: RealAgent): Promise<void> {
    this.#running.delete(running);
    const { connection, child } = running;
    const ended = new Promise((resolve) => {
      if (child.exitCode === null && child.signalCode === null) child.once("exit", resolve);
      else resolve(undefined);
    });
    connection.close();
    const timer = setTimeout(() => child.kill("SIGKILL"), 2000);
    await ended;
    clearTimeout(timer);
  }

  async close(): Promise<void> {
    for (const running of [...this.#running]) await this.stop(running);
    rmSync(this.#folder, { recursive: true });
  }
}
