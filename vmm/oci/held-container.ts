// Containers that have come before: their guest is made up to their program's first instruction, and goes on from there. What the
// mounts, the devices, fork and exec cost the guest's kernel has been paid for then. It holds for containers that are the same but
// for their host name, as those of one image with one command are; whether their files are, the shared folder's server is asked.
import { existsSync } from "node:fs";
import { Agent } from "../agent/agent.js";
import type { AgentConnection } from "../agent/connection.js";
import { GuestCommand } from "../agent/command.js";
import { encodeExec, type CommandOptions } from "../agent/exec-request.js";
import type { ResolvedConfig } from "../config/types.js";
import { SnapshotError, VmmError } from "../errors.js";
import { hostQuirks } from "../fixups/host-quirks.js";
import { guestConfig } from "../sdk/guest-config.js";
import { heldStart } from "../sdk/program-start.js";
import type { VmSpec } from "../sdk/vm-spec.js";
import { Workload } from "../sdk/workload.js";
import { ProgramTemplate } from "../snapshot/program-template.js";
import type { OpenSnapshot } from "../snapshot/restore.js";
import { templatePath } from "../snapshot/template.js";
import { mayChangeFiles } from "./hooks.js";
import { programFile } from "./find-program.js";
import { REMOVAL_REQUESTS, removeInterfaces } from "./network/guest-network.js";
import { processOptions } from "./process-options.js";
import type { OciProcess, OciSpec } from "./runtime-spec.js";

/** From the guest's start to where it is saved, `ms`. */
const LIMIT_MS = 300_000;
/** Words of a program among which the guest looks for its name, `bytes`. */
const MAX_WORDS_BYTES = 60_000;
const HOSTNAME = "HOSTNAME=";
/** In the place of a name of the same length. */
const PLACEHOLDER = "x";

export interface ContainerStart {
  readonly spec: OciSpec;
  readonly process: OciProcess;
  /** All that the process takes. */
  readonly steps: readonly string[];
  /** Namespaces of its own. */
  readonly made: number;
  readonly noInput: boolean;
  /** It has a loopback and nothing else. */
  readonly isNetworkless: boolean;
  readonly vm: VmSpec;
}

export class HeldContainer {
  readonly #template: ProgramTemplate;
  readonly #start: ContainerStart;
  readonly #process: OciProcess;
  readonly #steps: readonly string[];

  private constructor(start: ContainerStart, config: ResolvedConfig) {
    this.#start = start;
    const name = start.spec.hostname ?? "";
    this.#process = withPlaceholder(start.process, name);
    this.#steps = start.steps.map((word) => (word === name && name !== "" ? placeholder(name) : word));
    const request = encodeExec(this.#process.args, this.#options());
    const command = this.#process.args.map((word) => Buffer.from(word));
    const variables = [request, programOf(start), ...(start.isNetworkless ? [Buffer.from("no network")] : [])];
    this.#template = new ProgramTemplate(templatePath(config), { command, variables }, config.shares);
  }

  /** Undefined for a container that is none of its kind. Throws as templatePath does. */
  static of(start: ContainerStart): HeldContainer | undefined {
    if (!canBeHeld(start)) return undefined;
    const config = guestConfig(start.vm, hostQuirks());
    return isBuilt(config) ? new HeldContainer(start, config) : undefined;
  }

  /** Stream of the agent's on which it is held. */
  get stream(): number {
    const { vm, isNetworkless } = this.#start;
    return (heldStart(vm).heldOn ?? 0) + (isNetworkless ? REMOVAL_REQUESTS * tapsOf(vm) : 0);
  }

  /** Undefined if there is none yet. Made now, where such a container has come before. Never throws: another way is always there. */
  async open(signal: AbortSignal): Promise<OpenSnapshot | undefined> {
    const ready = this.#template.open();
    if (ready !== undefined) return ready;
    if (this.#template.isGivenUp || !this.#template.isKnown()) return undefined;
    try {
      const isMade = await this.#template.makeAlone((save) => this.#make(save, signal));
      return isMade ? this.#template.open() : undefined;
    } catch (error) {
      if (!(error instanceof VmmError)) throw error;
      // Such as one whose root lacks the places of its mounts: the next one will be no other.
      if (!signal.aborted) this.#template.giveUp();
      return undefined;
    }
  }

  /** A guest has gone on from it, or has found other files than it was made with. */
  served(isAsBefore: boolean): void {
    try {
      if (isAsBefore) this.#template.accepted();
      else this.#template.refused();
    } catch {
      // A cache that can only be read, or of which somebody removes what is old.
    }
  }

  async #make(save: (vm: Workload["vm"]) => Promise<void>, signal: AbortSignal): Promise<void> {
    let saved: (result: Promise<void>) => void = () => undefined;
    const done = new Promise<void>((resolve) => (saved = resolve));
    const vm = {
      ...this.#start.vm,
      volumes: this.#start.vm.volumes.map((volume) => ({ ...volume, isJournaled: true })),
    };
    const hooks = { log: () => undefined, snapshotPoint: (made: Workload["vm"]) => saved(save(made)) };
    const workload = await Workload.start(vm, hooks, signal);
    let timer: NodeJS.Timeout | undefined;
    try {
      if (this.#start.isNetworkless) await removeInterfaces(new Agent(workload.agent), 0, tapsOf(vm));
      await Promise.race([
        done,
        this.#begin(workload.agent),
        workload.ended.then(() => Promise.reject(new SnapshotError("The guest has ended before its program began"))),
        new Promise((_, reject) => {
          timer = setTimeout(() => {
            reject(new SnapshotError("The guest has not begun its program"));
          }, LIMIT_MS);
        }),
      ]);
    } finally {
      clearTimeout(timer);
      await workload.close();
    }
  }

  /** Rejects if the program cannot begin; it does not by itself. */
  async #begin(agent: AgentConnection): Promise<never> {
    return new Promise((_, reject) => {
      const command: GuestCommand = new GuestCommand(agent, this.#process.args, this.#options(), {
        onOutput: () => undefined,
        onExit: () => {
          reject(new SnapshotError("The program has ended before it began"));
        },
        onFailed: reject,
      });
      if (command.stream.id !== this.stream) reject(new SnapshotError("The agent has been asked for more"));
    });
  }

  #options(): CommandOptions {
    const { noInput, made } = this.#start;
    const around = { steps: this.#steps, made, size: undefined, noInput };
    return { ...processOptions(this.#process, around), hold: true, wait: true };
  }
}

/** What is kept is of a guest that is there; the first container's VM builds it. */
function isBuilt({ kernel, initrd }: ResolvedConfig): boolean {
  return [kernel, initrd].every((path) => path === undefined || existsSync(path));
}

/** Images of which each has a program of that name, but not the same: they are of two kinds. */
function programOf({ spec, vm }: ContainerStart): Buffer {
  const file = programFile(spec, vm.source);
  return Buffer.from(file === undefined ? "" : [file.ino, file.size, file.mtimeMs].join(" "));
}

function tapsOf({ network }: VmSpec): number {
  return network.kind === "namespace" ? network.taps.length : 0;
}

function canBeHeld({ spec, process, steps }: ContainerStart): boolean {
  const { args, env = [], terminal } = process;
  // A terminal has a size and modes, which its program finds at its start.
  if (terminal === true) return false;
  const bytes = [...args, ...env].reduce((sum, word) => sum + Buffer.byteLength(word) + 1, 0);
  if (bytes > MAX_WORDS_BYTES || args.some((word) => word.startsWith(HOSTNAME))) return false;
  if (env.filter((word) => word.startsWith(HOSTNAME)).length > 1) return false;
  const name = spec.hostname ?? "";
  // In another place than those two it would stay the other container's.
  const places = [...args, ...env.filter((word) => word !== `${HOSTNAME}${name}`)];
  if (name !== "" && places.some((word) => word.includes(name))) return false;
  if (name !== "" && steps.filter((word) => word.includes(name)).length > 1) return false;
  return !mayChangeFiles(spec.hooks);
}

function placeholder(name: string): string {
  return PLACEHOLDER.repeat(Buffer.byteLength(name));
}

function withPlaceholder(process: OciProcess, name: string): OciProcess {
  if (name === "") return process;
  const env = (process.env ?? []).map((word) =>
    word === `${HOSTNAME}${name}` ? `${HOSTNAME}${placeholder(name)}` : word,
  );
  return { ...process, env };
}
