// `run`: create, start, wait for the end, delete; detached, the first two alone.
import { resolve } from "node:path";
import { EXIT_JAIL, EXIT_SIGNAL_BASE } from "../host/exit-codes.js";
import { makeRaw } from "../sys/terminal.js";
import { onlyWord, parseOptions } from "./command-line.js";
import type { Context } from "./context.js";
import { CREATE_OPTIONS, createContainer } from "./create.js";
import { EARLY_OPTION } from "./early-process.js";
import { deleteContainer } from "./delete.js";
import { forwardSignals } from "./forward-signals.js";
import { MonitorEndedError, startContainer } from "./start.js";
import { containerOf } from "./state.js";

const STDIN = 0;
const SIGKILL = 9;

export async function run({ global, log, argv }: Context): Promise<number> {
  const { options, words } = parseOptions(argv, {
    values: CREATE_OPTIONS.values.filter((name) => name !== EARLY_OPTION),
    flags: [...CREATE_OPTIONS.flags, "detach|d", "keep", "no-subreaper"],
  });
  const container = containerOf(global.root, onlyWord(words, "run"));
  const isDetached = options.has("detach");
  const created = await createContainer({ global, log }, container, {
    bundle: resolve(options.value("bundle") ?? "."),
    consoleSocket: options.value("console-socket"),
    pidFile: options.value("pid-file"),
    isForeground: !isDetached,
  });
  const { monitor } = created;
  // "exit" comes once, whether or not anybody waits for it by then.
  const ended = new Promise<number>((done) => {
    monitor?.once("exit", (code) => {
      done(code ?? EXIT_SIGNAL_BASE + SIGKILL);
    });
  });
  const restore = isDetached || options.value("console-socket") !== undefined ? () => undefined : makeRaw(STDIN);
  const release = isDetached ? () => undefined : forwardSignals(monitor?.pid ?? 0);
  try {
    await startContainer(log, container);
    if (isDetached) return 0;
    monitor?.ref();
    return await ended;
  } catch (error) {
    // The line about the call that was refused is there already.
    if (error instanceof MonitorEndedError && !isDetached) {
      monitor?.ref();
      if ((await ended) === EXIT_JAIL) return EXIT_JAIL;
    }
    throw error;
  } finally {
    release();
    restore();
    if (!isDetached && !options.has("keep")) await deleteContainer(log, container, true);
  }
}
