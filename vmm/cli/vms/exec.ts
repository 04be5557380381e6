// `vmlet exec VM COMMAND`: another program in a running VM, as `docker exec` has it.
import { ConfigError, ExecError } from "../../errors.js";
import { OutputQueue, OutputWriter } from "../../host/standard-output.js";
import { print, say } from "../../host/say.js";
import { connectAgent } from "../../sdk/agent-socket.js";
import { MainProgram } from "../../sdk/main-program.js";
import { mergedEnv } from "../../sdk/plan.js";
import { StateFolder } from "../../sdk/state-folder.js";
import type { CommandSpec } from "../../sdk/vm-spec.js";
import type { VmRecord } from "../../sdk/vm-record.js";
import { onEndSignals } from "../../sys/end-signals.js";
import { isTerminal } from "../../sys/files.js";
import { CommandInput } from "../command-input.js";
import { TerminalInput } from "../input-source.js";
import { parseOptions } from "../parse-options.js";
import { UsageError } from "../usage-error.js";
import { variables } from "./run-arguments.js";
import { splitAtCommand } from "./split-at-command.js";

const STDIN = 0;
const SIGPIPE = 13;
const FLAGS = {
  interactive: { type: "boolean", short: "i" },
  tty: { type: "boolean", short: "t" },
  detach: { type: "boolean", short: "d" },
  env: { type: "string", short: "e", multiple: true },
  "env-file": { type: "string", multiple: true },
  workdir: { type: "string", short: "w" },
  user: { type: "string", short: "u" },
  help: { type: "boolean", short: "h" },
} as const;
/** Leaves the program behind, for a shell that knows no other way. */
const IN_BACKGROUND = ["/bin/sh", "-c", '"$@" </dev/null >/dev/null 2>&1 &', "sh"];

export async function exec(argv: readonly string[]): Promise<number> {
  const [args, words] = splitAtCommand(argv, FLAGS);
  const { values } = parseOptions(args, FLAGS, "vmlet exec");
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

function defaultsOf({ defaults: { env, workingDirectory, user } }: VmRecord) {
  return { env, workingDirectory, user };
}

/** The result is the process's exit code. */
async function execIn(agentSocket: string, spec: CommandSpec): Promise<number> {
  const agent = await connectAgent(agentSocket);
  const { stdout } = process;
  const queues = { 1: queue(1, () => program.signal(SIGPIPE)), 2: queue(2, () => program.signal(SIGPIPE)) };
  let input: CommandInput | undefined;
  const size = stdout.isTTY ? { rows: stdout.rows, columns: stdout.columns } : undefined;
  const program: MainProgram = new MainProgram(
    agent,
    spec,
    {
      output: (output, bytes, done) => {
        queues[output].push(bytes, done);
      },
      inputRoom: () => input?.resume(),
    },
    { size },
  );
  const removeHandlers = onEndSignals((number) => {
    program.signal(number);
  });
  const onResize = (): void => {
    program.resize(stdout.rows, stdout.columns);
  };
  if (spec.hasTerminal) stdout.on("resize", onResize);
  try {
    if (spec.isInteractive) {
      const target = {
        commandInput: (bytes: Uint8Array) => program.input(bytes),
        endCommandInput: () => {
          program.endInput();
        },
      };
      input = new CommandInput(target, spec.hasTerminal ? new TerminalInput() : undefined);
      input.open();
    }
    const { exitCode } = await program.exit;
    await Promise.all([queues[1].drained(), queues[2].drained()]);
    return exitCode;
  } catch (error) {
    if (!(error instanceof ExecError)) throw error;
    say(error.message);
    return error.exitCode;
  } finally {
    input?.close();
    stdout.off("resize", onResize);
    removeHandlers();
    agent.close();
  }
}

function queue(fd: 1 | 2, vanished: () => void): OutputQueue {
  const name = fd === 1 ? "standard output" : "standard error";
  return new OutputQueue(
    new OutputWriter(fd, {
      vanished,
      failed: (why) => {
        say(`${name}: ${why}: what the program writes is lost`);
      },
    }),
  );
}
