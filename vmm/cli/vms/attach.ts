// `vmlet attach VM`, and the terminal of `vmlet run --tty`: this process's streams at a VM's program.
import { ConfigError } from "../../errors.js";
import { EXIT_SIGNAL_BASE } from "../../host/exit-codes.js";
import { OutputQueue, OutputWriter } from "../../host/standard-output.js";
import { print, say } from "../../host/say.js";
import { AttachClient } from "../../sdk/attach-client.js";
import { StateFolder } from "../../sdk/state-folder.js";
import { onEndSignals } from "../../sys/end-signals.js";
import { isTerminal } from "../../sys/files.js";
import { FileInput, TerminalInput, type InputSource } from "../input-source.js";
import { parseOptions } from "../parse-options.js";
import { UsageError } from "../usage-error.js";
import { DetachKeys } from "./detach-keys.js";

const STDIN = 0;
const FLAGS = {
  "detach-keys": { type: "string" },
  "no-stdin": { type: "boolean" },
  help: { type: "boolean", short: "h" },
} as const;
/** The VM has gone without saying how its program ended. */
const EXIT_LOST = 125;
const USUAL_SIZE = { rows: 24, columns: 80 };

export interface AttachOptions {
  readonly name: string;
  readonly hasTerminal: boolean;
  readonly isInteractive: boolean;
  readonly detachKeys: string | undefined;
}

export async function attach(argv: readonly string[]): Promise<number> {
  const { values, positionals } = parseOptions([...argv], FLAGS, "vmlet attach", { allowPositionals: true });
  if (values.help === true) {
    const { ATTACH_HELP } = await import("./help.js");
    print(ATTACH_HELP);
    return 0;
  }
  const [word, ...more] = positionals;
  if (word === undefined || more.length > 0) throw new UsageError("vmlet attach: one VM is to be given");
  const state = new StateFolder();
  const record = state.find(word);
  if (record.status === "exited") throw new ConfigError([`VM ${record.name} has ended`]);
  if (record.command.length === 0)
    throw new ConfigError([`VM ${record.name} has no program of its own; vmlet exec starts one`]);
  return attachTo(state.folderOf(record.id).attachSocket, {
    name: record.name,
    hasTerminal: record.hasTerminal,
    isInteractive: values["no-stdin"] !== true,
    detachKeys: values["detach-keys"],
  });
}

/** The result is the process's exit code: the program's, or 0 once this process has left it. */
export async function attachTo(path: string, options: AttachOptions): Promise<number> {
  const keys = new DetachKeys(options.detachKeys);
  const isRaw = options.hasTerminal && options.isInteractive && isTerminal(STDIN);
  const queues = { 1: outputQueue(1), 2: outputQueue(2) };
  let source: InputSource | undefined;
  const client = await AttachClient.connect(path, {
    output: (output, bytes, done) => {
      queues[output].push(bytes, done);
    },
    inputRoom: () => source?.resume(),
  });
  let hasLeft = false as boolean;
  const removeHandlers = onEndSignals((number) => {
    client.signal(number);
  });
  const removeResize = followSize(client);
  try {
    if (options.isInteractive) {
      source = isRaw ? new TerminalInput() : new FileInput();
      const input = source;
      input.open(
        (bytes) => {
          const { passed, isDetached } = isRaw ? keys.take(bytes) : { passed: bytes, isDetached: false };
          if (passed.length > 0 && !client.input(passed)) input.pause();
          if (!isDetached) return;
          hasLeft = true;
          client.detach();
        },
        () => {
          client.endInput();
        },
      );
    }
    const exitCode = await client.ended;
    await Promise.all([queues[1].drained(), queues[2].drained()]);
    if (hasLeft) {
      source?.close();
      say(`left; the VM runs on: vmlet attach ${options.name}`);
      return 0;
    }
    return exitCode ?? EXIT_LOST;
  } finally {
    source?.close();
    removeResize();
    removeHandlers();
  }
}

function outputQueue(fd: 1 | 2): OutputQueue {
  return new OutputQueue(
    new OutputWriter(fd, {
      vanished: () => {
        process.exitCode = EXIT_SIGNAL_BASE;
      },
      failed: (why) => {
        say(`output: ${why}: what the program writes is lost`);
      },
    }),
  );
}

/** Hands the size of this process's terminal to the program's, now and whenever it changes. */
function followSize(client: AttachClient): () => void {
  const { stdout } = process;
  const tell = (): void => {
    const { rows, columns } = stdout.isTTY ? stdout : USUAL_SIZE;
    client.resize(rows, columns);
  };
  tell();
  stdout.on("resize", tell);
  return () => stdout.off("resize", tell);
}
