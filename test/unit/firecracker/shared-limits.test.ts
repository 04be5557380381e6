// Needs: nothing. A limit is one, and its words are, whoever asks: the program's own configuration or Firecracker's bodies.
import assert from "node:assert/strict";
import { resolveConfig } from "../../../vmm/config/resolve.js";
import type { VmConfig } from "../../../vmm/config/types.js";
import { ConfigError } from "../../../vmm/errors.js";
import { checkSection } from "../../../vmm/firecracker/check-section.js";
import { Fault } from "../../../vmm/firecracker/fault.js";
import type { SchemaName } from "../../../vmm/firecracker/schemas.js";

type Values = readonly unknown[];

/** Where a value stands in each, those that are taken and those that are not. */
const LIMITS: readonly (readonly [
  name: string,
  section: SchemaName,
  body: (value: unknown) => object,
  config: (value: never) => Partial<VmConfig>,
  good: Values,
  bad: Values,
])[] = [
  [
    "vCPUs",
    "MachineConfiguration",
    (value) => ({ vcpu_count: value, mem_size_mib: 128 }),
    (cpus) => ({ cpus }),
    [1, 32],
    [0, -1, 33, 1.5, "2", true],
  ],
  [
    "memory",
    "MachineConfiguration",
    (value) => ({ vcpu_count: 1, mem_size_mib: value }),
    (memoryMib) => ({ memoryMib }),
    [16, 2 ** 20],
    [0, 15, 2 ** 20 + 1, 2 ** 53, "128"],
  ],
  [
    "a packet's size",
    "NetworkInterface",
    (value) => ({ iface_id: "a", host_dev_name: "tap0", mtu: value }),
    (mtu) => ({ nets: [{ tap: "tap0", mtu }] }),
    [68, 65535],
    [67, 65536, -1, "1500"],
  ],
  [
    "an interface's address",
    "NetworkInterface",
    (value) => ({ iface_id: "a", host_dev_name: "tap0", guest_mac: value }),
    (mac) => ({ nets: [{ tap: "tap0", mac }] }),
    ["52:54:00:12:34:56", "AA:bb:CC:dd:EE:ff"],
    ["01:00:00:00:00:01", "00:00:00:00:00:00", "52:54:00:12:34", "52-54-00-12-34-56", "52:54:00:12:34:5g", ""],
  ],
  [
    "an interface's name",
    "NetworkInterface",
    (value) => ({ iface_id: "a", host_dev_name: value }),
    (tap) => ({ nets: [{ tap }] }),
    ["tap0", "a".repeat(15), "ä"],
    ["", "a".repeat(16), ".", "..", "a b", "a/b", "a%d", "a:b", "a\0", "a\n"],
  ],
  [
    "a context id",
    "Vsock",
    (value) => ({ guest_cid: value, uds_path: "v" }),
    (cid) => ({ vsock: { cid, path: "v" } }),
    [3, 2 ** 32 - 2],
    [0, 2, 2 ** 32 - 1, "3"],
  ],
  [
    "a partition's id",
    "Drive",
    (value) => ({ drive_id: "a", is_root_device: true, path_on_host: "f", partuuid: value }),
    (partuuid) => ({ disks: [{ path: "f", isRoot: true, partuuid }] }),
    ["0eaa91a0-01", "a".repeat(64)],
    ["", "a b", "a".repeat(65), "a\0"],
  ],
  [
    "the statistics' interval",
    "Balloon",
    (value) => ({ amount_mib: 1, deflate_on_oom: true, stats_polling_interval_s: value }),
    (statisticsIntervalS) => ({ balloon: { targetMib: 1, statisticsIntervalS } }),
    [0, 65535],
    [-1, 65536, 0.5],
  ],
  [
    "the metadata service's address",
    "MmdsConfig",
    (value) => ({ network_interfaces: ["a"], ipv4_address: value }),
    (address) => ({ mmds: { address } }),
    ["169.254.1.0", "169.254.254.255"],
    ["169.254.0.255", "169.254.255.0", "10.0.0.1", "169.254.1.256", "169.254.1", ""],
  ],
];

/** How a message ends: behind the field's name. */
function tail(message: string): string {
  return message.replace(/^.* is not /s, "is not ");
}

describe("firecracker: limits", () => {
  for (const [name, section, body, config, good, bad] of LIMITS) {
    it(`${name}: what a configuration may have, a body may, and nothing else`, () => {
      const resolve = (value: unknown): unknown => resolveConfig({ kernel: "k", ...config(value as never) });
      for (const value of good) {
        checkSection(section, body(value));
        resolve(value);
      }
      for (const value of bad) {
        let said = "";
        assert.throws(
          () => resolve(value),
          (error) => {
            said = (error as Error).message;
            return error instanceof ConfigError;
          },
          String(value),
        );
        assert.throws(
          () => checkSection(section, body(value)),
          (error) => {
            // Bodies know types, and a name there is not "auto".
            const hasOwnWords = typeof value !== typeof good[0] || name === "an interface's name";
            if (!hasOwnWords && Number.isInteger(value)) assert.equal(tail((error as Error).message), tail(said));
            return error instanceof Fault;
          },
          String(value),
        );
      }
    });
  }
});
