// Configurations as JSON, from files and saved states, and the partition tables of a guest's disk.
import assert from "node:assert/strict";
import { ftruncateSync, writeSync } from "node:fs";
import { contentOf } from "../../../vmm/cli/partitions.js";
import { resolveConfig } from "../../../vmm/config/resolve.js";
import type { VmConfig } from "../../../vmm/config/types.js";
import { ConfigError } from "../../../vmm/errors.js";
import { checkedProcess, checkedResources } from "../../../vmm/oci/read-config.js";
import { sharedMemoryFile } from "../../../vmm/sys/shared-memory.js";
import { allowing, text, type ByteTarget } from "../coverage/byte-target.js";

/** Undefined for what is no JSON. */
function jsonOf(input: Uint8Array): unknown {
  try {
    return JSON.parse(Buffer.from(input).toString("utf8"));
  } catch {
    return undefined;
  }
}

export const vmConfigTarget: ByteTarget = {
  name: "vm-config",
  parser: "resolveConfig: a VM's configuration, as in a saved state",
  maxLength: 1024,
  seeds: [
    text(
      '{"kernel":"/k","memoryMib":128,"cpus":2,"disks":[{"path":"/d","readonly":true,"rateLimiter":{"operations":{"size":1,"refillTimeMs":2}}}],"nets":[{"tap":"t","mac":"02:00:00:00:00:01"}],"vsock":{"path":"/v","cid":3},"balloon":{"targetMib":5},"shares":[{"path":"/s","tag":"t"}]}',
    ),
  ],
  words: [
    '"user"',
    '"forward"',
    '"mmds"',
    '"console":"virtio"',
    '"rng":true',
    '"pci":true',
    '"vfio"',
    '"hugePages"',
    "null",
  ],
  run(input) {
    const value = jsonOf(input);
    if (value === undefined) return;
    allowing(
      [ConfigError],
      () => {
        const { memoryMib, cpus, cmdline } = resolveConfig(value as VmConfig);
        assert.ok(Number.isInteger(memoryMib) && memoryMib > 0 && cpus > 0 && !cmdline.includes("\0"));
      },
      /[\x00-\x09\x0b-\x1f\x7f]/,
    );
  },
};

export const ociConfigTarget: ByteTarget = {
  name: "oci-config",
  parser: "checkedProcess, checkedResources: parts of an OCI config.json",
  maxLength: 1024,
  seeds: [
    text(
      '{"args":["a"],"cwd":"/","env":["A=b"],"terminal":true,"consoleSize":{"width":1,"height":2},"user":{"uid":0,"gid":0,"additionalGids":[1]},"capabilities":{"bounding":["CAP_KILL"]},"rlimits":[{"type":"RLIMIT_NOFILE","hard":1,"soft":1}]}',
    ),
    text(
      '{"memory":{"limit":1},"cpu":{"shares":2,"quota":-1,"cpus":"0"},"pids":{"limit":1},"blockIO":{"throttleReadBpsDevice":[{"major":1,"minor":2,"rate":3}]},"unified":{"memory.high":"1"},"devices":[{"allow":true}]}',
    ),
  ],
  words: ["CAP_SYS_ADMIN", '"umask"', '"noNewPrivileges"', '"oomScoreAdj"', '"throttleWriteIOPSDevice"', "null"],
  run(input) {
    const value = jsonOf(input);
    allowing([ConfigError], () => void checkedProcess(value, "process"));
    allowing([ConfigError], () => checkedResources(value, "resources"));
  },
};

/** A file in memory, one for all inputs, which stays for as long as the process does. */
let disk: number | undefined;

function diskWith(input: Uint8Array): string {
  disk ??= sharedMemoryFile("fuzz");
  ftruncateSync(disk, 0);
  writeSync(disk, input, 0, input.length, 0);
  return `/proc/self/fd/${String(disk)}`;
}

const GPT = ((): Buffer => {
  const bytes = Buffer.alloc(2048);
  bytes.write("EFI PART", 512);
  bytes.writeBigUInt64LE(2n, 512 + 72);
  bytes.writeUInt32LE(4, 512 + 80);
  bytes.writeUInt32LE(128, 512 + 84);
  bytes.fill(7, 1024, 1056);
  bytes.write("root", 1024 + 56, "utf16le");
  return bytes;
})();
const MBR = Buffer.alloc(512, 0);
MBR.writeUInt16LE(0xaa55, 510);
MBR.writeUInt32LE(5, 0x1be + 12);

export const partitionsTarget: ByteTarget = {
  name: "partitions",
  parser: "contentOf: partition tables",
  maxLength: 4096,
  seeds: [GPT, MBR],
  run(input) {
    const { partitions } = contentOf(diskWith(input));
    assert.ok(partitions.length <= 128);
    for (const { number, uuid } of partitions) assert.ok(number >= 1 && number <= 128 && /^[0-9a-f-]+$/.test(uuid));
  },
};
