// `vmlet exec VM COMMAND`: another program in a running VM, as `docker exec` has it.
import { ConfigError, ExecError } from "../../errors.js";
import { EXIT_SIGNAL_BASE } from "../../host/exit-codes.js";
import { print, say } from "../../host/say.js";
import { connectAgent } from "../../sdk/agent-socket.js";
import { MainProgram } from "../../sdk/main-program.js";
import { mergedEnv, ROOT_USER } from "../../sdk/plan.js";
import { StateFolder } from "../../sdk/state-folder.js";
import type { CommandDefaults, CommandSpec } from "../../sdk/command-spec.js";
import { userProblem } from "../../sdk/vm-options.js";
import type { VmRecord } from "../../sdk/vm-record.js";
import { onEndSignals } from "../../sys/end-signals.js";
import { isTerminal } from "../../sys/files.js";
import { CommandInput } from "../../host/command-input.js";
import { TerminalInput } from "../input-source.js";
import { parseOptions } from "../parse-options.js";
import { UsageError } from "../usage-error.js";
import { withoutSwitches } from "./docker-options.js";
import { variables } from "./file-lines.js";
import { PATIENCE } from "./patience.js";
import { programOutput } from "./program-output.js";
import { splitAtCommand } from "./split-at-command.js";
import { followTerminalSize, terminalSize } from "./terminal-size.js";

const STDIN = 0;
const SIGHUP = 1;
const SIGPIPE = 13;
export const EXEC_FLAGS = {
  interactive: { type: "boolean", short: "i" },
  tty: { type: "boolean", short: "t" },
  detach: { type: "boolean", short: "d" },
  env: { type: "string", short: "e", multiple: true },
  "env-file": { type: "string", multiple: true },
  workdir: { type: "string", short: "w" },
  user: { type: "string", short: "u" },
  help: { type: "boolean", short: "h" },
} as const;
/** Docker's; root has every right in a guest. */
const FLAGS = { ...EXEC_FLAGS, privileged: { type: "boolean" }, "detach-keys": { type: "string" } } as const;
/** Leaves the program behind, for a shell that knows no other way. */
const IN_BACKGROUND = ["/bin/sh", "-c", '"$@" </dev/null >/dev/null 2>&1 &', "sh"];

export async function exec(argv: readonly string[]): Promise<number> {
  const [args, words] = splitAtCommand(argv, FLAGS);
  const { values } = parseOptions(withoutSwitches(args, FLAGS), FLAGS, "vmlet exec");
  if (values["detach-keys"] !== undefined) {
    throw new UsageError(
      "vmlet exec: there is no --detach-keys: what has been started here ends with it; --detach leaves it",
    );
  }
  if (values.help === true) {
    const { EXEC_HELP } = await import("./help.js");
    print(EXEC_HELP);
    return 0;
  }
  const [word, ...rest] = words;
  const command = rest[0] === "--" ? rest.slice(1) : rest;
  if (word === undefined) throw new UsageError("vmlet exec: no VM is given");
  if (command.length === 0) throw new UsageError("vmlet exec: no COMMAND is given");
  const isInteractive = values.interactive === true && values.detach !== true;
  const hasTerminal = values.tty === true && values.detach !== true;
  if (hasTerminal && isInteractive && !isTerminal(STDIN)) {
    throw new UsageError("vmlet exec: --tty with --interactive needs a terminal as standard input; leave --tty out");
  }
  const problem = values.user === undefined ? undefined : userProblem(values.user);
  if (problem !== undefined) throw new UsageError(`vmlet exec: ${problem}`);
  if (values.workdir !== undefined && !values.workdir.startsWith("/")) {
    throw new UsageError(`vmlet exec: --workdir ${JSON.stringify(values.workdir)} is not an absolute path of the VM`);
  }
  const state = new StateFolder();
  const record = state.find(word);
  if (record.status !== "running") throw new ConfigError([`VM ${record.name} does not run`]);
  const env = variables(values["env-file"] ?? [], values.env ?? []);
  return execIn(state.folderOf(record.id).agentSocket, {
    ...defaultsOf(record),
    ...(values.workdir === undefined ? {} : { workingDirectory: values.workdir }),
    ...(values.user === undefined ? {} : { user: values.user }),
    env: mergedEnv(
      record.defaults.env,
      Object.entries(env).map(([name, value]) => `${name}=${value}`),
    ),
    argv: values.detach === true ? [...IN_BACKGROUND, ...command] : command,
    hasTerminal,
    isInteractive,
  });
}

function defaultsOf({ defaults }: VmRecord): CommandDefaults {
  return { ...defaults, user: defaults.user === "" ? ROOT_USER : defaults.user };
}

/** The result is the process's exit code. */
async function execIn(agentSocket: string, spec: CommandSpec): Promise<number> {
  const agent = await connectAgent(agentSocket);
  const queues = {
    1: programOutput(1, () => program.signal(SIGPIPE)),
    2: programOutput(2, () => program.signal(SIGPIPE)),
  };
  let input: CommandInput | undefined;
  const program: MainProgram = new MainProgram(
    agent,
    spec,
    {
      output: (output, bytes, done) => {
        queues[output].push(bytes, done);
      },
      inputRoom: () => input?.resume(),
    },
    { size: spec.hasTerminal ? terminalSize() : undefined, needsFolder: true },
  );
  let signals = 0;
  const removeHandlers = onEndSignals((number) => {
    // What has been started here ends with this connection.
    if (++signals > PATIENCE) hangUp(EXIT_SIGNAL_BASE + number);
    else program.signal(number);
  });
  let hangUp: (exitCode: number) => void = () => undefined;
  const hungUp = new Promise<{ readonly exitCode: number }>((resolve) => {
    hangUp = (exitCode) => {
      resolve({ exitCode });
    };
  });
  const removeResize = spec.hasTerminal
    ? followTerminalSize((rows, columns) => {
        program.resize(rows, columns);
      })
    : undefined;
  try {
    if (spec.isInteractive) {
      const target = {
        commandInput: (bytes: Uint8Array) => program.input(bytes),
        endCommandInput: () => {
          if (spec.hasTerminal) hangUp(EXIT_SIGNAL_BASE + SIGHUP);
          else program.endInput();
        },
      };
      input = new CommandInput(target, spec.hasTerminal ? new TerminalInput({ rawOutput: true }) : undefined);
      input.open();
    }
    const { exitCode } = await Promise.race([program.exit, hungUp]);
    await Promise.all([queues[1].drained(), queues[2].drained()]);
    return exitCode;
  } catch (error) {
    if (!(error instanceof ExecError)) throw error;
    say(error.message);
    return error.exitCode;
  } finally {
    input?.close();
    removeResize?.();
    removeHandlers();
    agent.close();
  }
}
