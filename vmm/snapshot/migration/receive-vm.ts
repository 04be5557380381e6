// A guest that moves into this process, for programs: waits for it, makes a VM of it, starts that.
import { knownQuirks } from "../../fixups/probe.js";
import type { Quirks } from "../../fixups/quirks.js";
import { KvmSystem } from "../../kvm/system.js";
import type { StartOptions } from "../../machine/arguments.js";
import type { BuildOptions } from "../../machine/builder.js";
import type { VmHost } from "../../machine/host-callbacks.js";
import type { Vm } from "../../machine/vm.js";
import type { VmExit } from "../../machine/vm-exit.js";
import type { RestoreOverrides } from "../overrides.js";
import { addressText, parseMigrationAddress } from "./address.js";
import { GuestListener } from "./receive.js";

export interface ReceivedVm {
  /** It runs. */
  readonly vm: Vm;
  /** As `vm.start()` has answered. */
  readonly ended: Promise<VmExit>;
}

export interface VmReceiver {
  /** Where a sender finds it: with the port, if it was 0. */
  readonly address: string;
  /**
   * Settles when a guest has come and runs. Rejects with ConfigError, DiskError, HostError, SnapshotError or KvmIoctlError
   * for one that could not: it goes on where it was.
   */
  readonly received: Promise<ReceivedVm>;
  /** Nobody is waited for any more; a guest that has come stays. */
  close(): void;
}

export interface ReceiverOptions extends StartOptions {
  readonly overrides?: RestoreOverrides | undefined;
  readonly build?: BuildOptions;
}

/** Rejects with ConfigError or HostError if nobody can listen at the address. */
export async function receiveVm(address: string, host: VmHost, options: ReceiverOptions = {}): Promise<VmReceiver> {
  const known = { quirks: quirksHere() };
  const listener = await GuestListener.listen(parseMigrationAddress(address, { isServer: true }));
  const received = receiveInto(listener, host, options, known);
  received.catch(() => undefined);
  return { address: addressText(listener.address), received, close: () => listener.close() };
}

function quirksHere(): Quirks | undefined {
  const system = KvmSystem.open();
  try {
    return knownQuirks(system);
  } finally {
    system.close();
  }
}

async function receiveInto(
  listener: GuestListener,
  host: VmHost,
  { overrides, build, threads }: ReceiverOptions,
  known: NonNullable<BuildOptions["known"]>,
): Promise<ReceivedVm> {
  const guest = await listener.accept({
    overrides,
    software: known.quirks !== undefined,
    ignored: (why) => host.log?.(`somebody has connected and is no sender: ${why}`),
  });
  let vm: Vm | undefined;
  try {
    vm = guest.restore(host, { ...build, known });
    await guest.takeOver();
  } catch (error) {
    await vm?.close();
    await guest.refuse(error);
    throw error;
  }
  return { vm, ended: vm.start({ threads }) };
}
