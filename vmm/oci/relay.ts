// The process that stands for a program of `exec` on the host.
import { closeSync, readFileSync, rmSync, writeFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { steps } from "../agent/container-request.js";
import { EXIT_SIGNAL_BASE } from "../host/exit-codes.js";
import { connectAgent } from "../sdk/agent-socket.js";
import { ownIdentity } from "../sdk/process-identity.js";
import { awaitTurn, type Turn } from "./early-process.js";
import { startFailure } from "./exec-failure.js";
import { REPORT_FD } from "./exec.js";
import { messageOf } from "./log.js";
import type { OciProcess } from "./runtime-spec.js";
import { holdTerminal, StandardProgram } from "./standard-program.js";
import { AGENT_SOCKET, Container } from "./state.js";

const SIGKILL = 9;
const EXIT_FAILURE = 255;
const OK = "ok";

/** The result is the process's exit code. */
export async function relay(folder: string, order: string): Promise<number> {
  const turn = awaitTurn();
  if (turn === "gone") return EXIT_FAILURE;
  const report = turn === undefined ? reportByDescriptor : reportTo(turn);
  const container = Container.at(folder);
  const own = join(folder, `relay-${String(process.pid)}.json`);
  try {
    writeFileSync(own, JSON.stringify(ownIdentity()), { mode: 0o600 });
    return await relayIn(container, order, report);
  } catch (error) {
    // The container has been removed meanwhile, or the disk is full.
    report(messageOf(error));
    return EXIT_FAILURE;
  } finally {
    rmSync(own, { force: true });
  }
}

async function relayIn(container: Container, order: string, report: Report): Promise<number> {
  let program: StandardProgram;
  try {
    const process = JSON.parse(readFileSync(order, "utf8")) as OciProcess;
    rmSync(order, { force: true });
    if (process.terminal === true) holdTerminal();
    const record = container.known;
    const { group, filter, namespaces, joined } = record;
    const agent = await connectAgent(container.vmOwner(record).shortPath(AGENT_SOCKET));
    program = new StandardProgram(agent, process, {
      // It only joins the group: an update may have changed the limit.
      steps: [...group.slice(0, steps.cgroup("").length), ...filter],
      join: container.phase?.guestPid ?? 0,
      joined: namespaces | joined,
    });
    await program.started;
  } catch (error) {
    report(startFailure(error).replaceAll("\n", "; "));
    return EXIT_FAILURE;
  }
  report(OK);
  try {
    return (await program.ended).exitCode;
  } catch {
    // The VM has ended under it.
    return EXIT_SIGNAL_BASE + SIGKILL;
  }
}

/** How the start has gone: "ok", or a line that says why not. */
type Report = (line: string) => void;

function reportTo(turn: Turn): Report {
  return (line) => {
    turn.answer(line === OK ? { ok: true } : { error: line });
  };
}

function reportByDescriptor(line: string): void {
  try {
    writeSync(REPORT_FD, `${line}\n`);
    closeSync(REPORT_FD);
  } catch {
    // Whoever asked has gone; the program is there.
  }
}
