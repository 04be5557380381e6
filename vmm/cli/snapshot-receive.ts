// `vmlet snapshot receive ADDRESS`: waits for a guest that another vmlet sends, and runs it as `vmlet boot` would.
import { EXIT_SIGNAL_BASE } from "../host/exit-codes.js";
import { print, say } from "../host/say.js";
import { SnapshotError } from "../errors.js";
import { addressText, parseMigrationAddress } from "../snapshot/migration/address.js";
import { GuestListener, type ReceivedGuest } from "../snapshot/migration/receive.js";
import { onEndSignals } from "../sys/end-signals.js";
import { chooseOrExplain } from "./accelerator.js";
import { checkOutputs } from "./check-outputs.js";
import { runGuest } from "./run-guest.js";
import { parseSnapshotReceive, type ReceiveOptions } from "./snapshot-arguments.js";
import type { Quirks } from "../fixups/quirks.js";

export async function receive(argv: readonly string[]): Promise<number> {
  const options = parseSnapshotReceive(argv);
  if (options.help) {
    const { SNAPSHOT_RECEIVE_HELP } = await import("./snapshot-help.js");
    print(SNAPSHOT_RECEIVE_HELP);
    return 0;
  }
  const address = parseMigrationAddress(options.address, { isServer: true });
  const { report, metrics, control } = options;
  await checkOutputs({ report, metrics, control, vsock: options.overrides.vsock?.path }, []);
  const choice = await chooseOrExplain("kvm");
  if (choice.kind !== "kvm") {
    throw new SnapshotError("A guest is received where there is a /dev/kvm; the lab has its own");
  }
  const listener = await GuestListener.listen(address);
  let removeHandlers = (): void => undefined;
  const ended = new Promise<number>((resolve) => {
    removeHandlers = onEndSignals((number) => {
      listener.close();
      resolve(EXIT_SIGNAL_BASE + number);
    });
  });
  if (!options.quiet) say(`waiting for a guest at ${addressText(listener.address)}`);
  let guest: ReceivedGuest | number;
  try {
    guest = await Promise.race([
      ended,
      listener.accept({
        overrides: options.overrides,
        software: choice.quirks !== undefined,
        ignored: (why) => {
          say(`somebody has connected and is no sender: ${why}`);
        },
        prepare: async (config) => {
          if (config.nets.length > 0) (await import("./rights.js")).checkRights(config.nets);
          // What follows while the guest rests shall not wait for code.
          const { loadDeviceSupport } = await import("../virtio/device-support.js");
          await loadDeviceSupport(config);
          if (control !== undefined) await import("../sdk/control.js");
          if (metrics !== undefined) await import("./metrics.js");
        },
      }),
    ]);
  } finally {
    listener.close();
    removeHandlers();
  }
  return typeof guest === "number" ? guest : run(options, guest, choice.quirks);
}

async function run(
  { report, metrics, control }: ReceiveOptions,
  guest: ReceivedGuest,
  quirks: Quirks | undefined,
): Promise<number> {
  const { kernel } = guest.opened.saved.images;
  let isOurs = false as boolean;
  try {
    return await runGuest({
      config: guest.config,
      outputs: { report, metrics, control },
      readsInput: true,
      runsCommand: false,
      kernel: { sha256: "sha256" in kernel ? (kernel.sha256 ?? "") : "", ms: 0 },
      progress: undefined,
      make: (host, deviceSupport) => guest.restore(host, { known: { quirks }, deviceSupport, hearsOwner: true }),
      beforeStart: async () => {
        await guest.takeOver();
        isOurs = true;
      },
    });
  } catch (error) {
    // Its devices are closed: the sender can have them back.
    if (!isOurs) await guest.refuse(error);
    throw error;
  }
}
