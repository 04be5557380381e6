// How a VM's own program begins: in a guest that goes on from a template, with the first word that the host says; where its
// command has come before, it is held behind its exec in a snapshot of its own, and neither fork nor exec is paid for.
import type { AgentConnection, ConnectionOptions } from "../agent/connection.js";
import { encodeExec } from "../agent/exec-request.js";
import { SnapshotError, VmStateError } from "../errors.js";
import type { Vm } from "../machine/vm.js";
import { ProgramTemplate } from "../snapshot/program-template.js";
import { commandOptions } from "./main-program.js";
import type { ResolvedShare } from "../config/shares.js";
import type { CommandSpec } from "./command-spec.js";
import { countSetUpRequests, heldMountsKey } from "./held-mounts.js";
import type { VmSpec } from "./vm-spec.js";

/** What the agent of a template has said in its HELLO: it can be answered before it runs. docs/agent-protocol.md. */
const TEMPLATE_NONCE = 1;
/** The first stream of a connection: what sets the guest up comes first, then the held program. */
const FIRST_STREAM = 1;

export interface ProgramStart {
  /** The program is made and loaded, and stops before it begins: a snapshot of the guest is made then. */
  readonly holds: boolean;
  /** Stream of the agent's on which a snapshot holds it. */
  readonly heldOn: number | undefined;
}

export const PLAIN_START: ProgramStart = { holds: false, heldOn: undefined };

export function connectionOfTemplate({ heldOn }: ProgramStart): ConnectionOptions {
  return heldOn === undefined ? { nonce: TEMPLATE_NONCE } : { isGreeted: true };
}

export function heldStart(spec: VmSpec): ProgramStart {
  return { holds: false, heldOn: FIRST_STREAM + countSetUpRequests(spec) };
}

/**
 * `template`: path of that, which need not be there. `shares`: what its guests find as volumes. Undefined for a program that
 * nothing can be kept of.
 */
export function programTemplate(
  template: string,
  spec: VmSpec,
  main: CommandSpec,
  shares: readonly ResolvedShare[],
): ProgramTemplate | undefined {
  // A terminal has a size and modes, which its program finds at its start.
  if (main.hasTerminal) return undefined;
  const request = encodeExec(main.argv, commandOptions(main, undefined));
  const mounts = heldMountsKey(spec);
  const variables = mounts === undefined ? [request] : [request, mounts];
  return new ProgramTemplate(template, { command: main.argv.map((word) => Buffer.from(word)), variables }, shares);
}

/** The guest waits where its program is held, and goes on after `seal`. */
export async function keepProgram(
  program: ProgramTemplate,
  vm: Vm,
  log: (line: string) => void,
  seal: () => Promise<void>,
): Promise<void> {
  try {
    await program.make(vm, seal);
  } catch (error) {
    // The guest has been stopped meanwhile.
    if (error instanceof VmStateError) return;
    if (!(error instanceof SnapshotError)) throw error;
    // What its program needs lies in a volume: such a guest is no other's, and that is nobody's mistake.
    if (vm.config.shares.length > 0) return;
    log(`the program is not kept for the next time: ${error.message}`);
  }
}

/** Begins a VM's own program, once it may: what is said to the agent comes in this order. */
export type BeginProgram = (agent: AgentConnection, start: ProgramStart) => void;
