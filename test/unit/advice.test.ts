// Needs: bash. What messages advise: it can be copied into a shell, it does what it says, and it helps.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { memoryProblem } from "../../vmm/config/memory-limits.js";
import { softwareKvmCmdline } from "../../vmm/config/software-kvm.js";
import type { ResolvedConfig } from "../../vmm/config/types.js";
import { resolveConfig } from "../../vmm/config/resolve.js";
import { ConfigError, HostError } from "../../vmm/errors.js";
import { nameUnemulated } from "../../vmm/fixups/unemulated.js";
import { availableMemoryMib } from "../../vmm/host/available-memory.js";
import { freshPath, shellWord } from "../../vmm/host/shell-word.js";
import { KVM_CAP_SIGNAL_MSI } from "../../vmm/sys/kvm-abi.js";
import type { KvmSystem } from "../../vmm/kvm/system.js";
import { checkHost } from "../../vmm/machine/host-check.js";
import { openTap } from "../../vmm/virtio/backends/tap-interface.js";

describe("advice: commands to copy", function () {
  // A shell a word.
  this.timeout(30_000);
  const words = [
    ...[
      "plain",
      "a b",
      "it's",
      "$(reboot)",
      "`id`",
      "a;b",
      "a&b",
      "-rf",
      "--",
      "*",
      "~",
      "é",
      "a\\b",
      '"',
      "a\nb",
      "!x",
      "#x",
    ],
    ...["{a,b}", "<x>", "|", "a'b'c", "''", "/usr/bin/x", "a=b", "%s"],
  ];

  it("a path is one word of a shell, as it is, and never an option", () => {
    for (const word of words) {
      const shown = execFileSync("bash", ["-c", `printf '%s\\0' ${shellWord(word)}`], { encoding: "utf8" });
      assert.deepEqual(shown.split("\0"), [word.startsWith("-") ? `./${word}` : word, ""]);
    }
  });

  it("what is made is new: no file is overwritten", () => {
    const folder = mkdtempSync(join(tmpdir(), "vmlet-test-"));
    const path = join(folder, "disk.qcow2");
    writeFileSync(path, "");
    const first = freshPath(path, ".raw");
    writeFileSync(first, "");
    const second = freshPath(path, ".raw");
    assert.deepEqual([first, second], [join(folder, "disk.raw"), join(folder, "disk-2.raw")]);
    assert.notEqual(freshPath(first, ".raw"), first);
    assert.equal(freshPath(join(folder, ".hidden"), ".raw"), join(folder, ".hidden.raw"));
    rmSync(folder, { recursive: true });
  });

  it("an interface that does not exist is made by its name, whatever the shell would take it for", () => {
    for (const name of ["$(reboot)", "a;id", "it's"]) {
      assert.throws(
        () => openTap({ name }),
        (error) => {
          assert.ok(error instanceof HostError);
          assert.match(error.message, /no such interface/);
          const script = (error.cure ?? "").replace(/^make it: /, "").replace(/; or ask .*$/, "");
          const log = execFileSync("bash", ["-ec", `sudo() { printf '%s\\n' "$*"; }; USER=me; ${script}`], {
            encoding: "utf8",
          });
          assert.equal(log, `ip tuntap add dev ${name} mode tap user me\nip link set ${name} up\n`);
          return true;
        },
      );
    }
  });
});

describe("advice: instructions that a software KVM does not do", () => {
  /** Word and bit of each feature: Linux, arch/x86/include/asm/cpufeatures.h. */
  const features: readonly (readonly [name: string, bytes: readonly number[], word: number, bit: number])[] = [
    ["RDTSCP", [0x0f, 0x01, 0xf9], 1, 27],
    ["CRC32", [0xf2, 0x0f, 0x38, 0xf1, 0xc0], 4, 20],
    ["MOVBE", [0x0f, 0x38, 0xf0, 0x00], 4, 22],
    ["AES", [0x66, 0x0f, 0x38, 0xdc, 0xc1], 4, 25],
    ["AVX", [0xc5, 0xf8, 0x77], 4, 28],
    ["AVX-512", [0x62, 0xf1, 0x7c, 0x48, 0x28, 0xc1], 9, 16],
  ];
  /** The kernel heeds the last clearcpuid= alone. */
  const refused = (cmdline: string): number[] =>
    (cmdline.split(" ").findLast((word) => word.startsWith("clearcpuid=")) ?? "").slice(11).split(",").map(Number);

  for (const [name, bytes, word, bit] of features) {
    it(`${name}: the word refuses its feature, and all that is refused without it`, () => {
      const unemulated = nameUnemulated(Uint8Array.from(bytes));
      assert.ok(unemulated.name?.includes(name), unemulated.name);
      const advised = /add (\S+) to --cmdline/.exec(unemulated.cure)?.[1] ?? "";
      const own = softwareKvmCmdline(0);
      const after = refused(`${own} ${advised}`);
      assert.ok(after.includes(word * 32 + bit));
      for (const feature of refused(own)) assert.ok(after.includes(feature), String(feature));
    });
  }

  it("no word that is there already is advised", () => {
    const own = softwareKvmCmdline(0).split(" ");
    for (let second = 0; second < 256; second++) {
      for (const third of [0x00, 0x82, 0xd0, 0xee, 0xef, 0xf0, 0xf9]) {
        const { cure } = nameUnemulated(Uint8Array.of(0x0f, second, third, 0, 0, 0, 0));
        const advised = /add (\S+) to --cmdline/.exec(cure)?.[1];
        if (advised !== undefined) assert.ok(!own.includes(advised), advised);
      }
    }
  });
});

describe("memory: what a host cannot give", () => {
  it("addresses: the limit is named, and is right", () => {
    const limits = { addressBits: 36, availableMib: 2 ** 30 };
    const most = 64 * 1024 - 1024;
    assert.equal(memoryProblem(most, limits), undefined);
    assert.match(memoryProblem(most + 1, limits) ?? "", /65536|64513 MiB: .* 36 bits, enough for 64512 MiB/);
    assert.equal(memoryProblem(3072, { addressBits: 32, availableMib: 1000 }), undefined);
  });

  it("what Linux keeps about each page: the limit is named, and a guest of that size is not refused", () => {
    const limits = { addressBits: 52, availableMib: 1000 };
    const limit = /enough for (\d+) MiB$/.exec(memoryProblem(1024 * 1024, limits) ?? "")?.[1];
    assert.equal(limit, "64000");
    assert.equal(memoryProblem(64000, limits), undefined);
    assert.match(memoryProblem(64001, limits) ?? "", /1\/64 of it \(1001 MiB\).* has 1000 MiB/);
  });

  it("this host has some, and not more than it has at all", () => {
    const total = Number(/MemTotal:\s*(\d+)/.exec(readFileSync("/proc/meminfo", "latin1"))?.[1]) / 1024;
    const swap = Number(/SwapTotal:\s*(\d+)/.exec(readFileSync("/proc/meminfo", "latin1"))?.[1]) / 1024;
    const available = availableMemoryMib();
    assert.ok(available > 0 && available <= total + swap && Number.isInteger(available));
  });
});

describe("a KVM is asked before it is relied on", () => {
  /** What KVM_GET_SUPPORTED_CPUID says; capabilities are all there. */
  const system = (leaves: Readonly<Record<number, { eax?: number; ecx?: number }>>): KvmSystem => {
    const entries = Object.entries(leaves).map(([leaf, registers]) => ({
      ...{ function: Number(leaf), index: 0, flags: 0, eax: 0, ebx: 0, ecx: 0, edx: 0 },
      ...registers,
    }));
    return { checkExtension: () => 64, supportedCpuid: () => entries } as unknown as KvmSystem;
  };
  const config = (change: Partial<ResolvedConfig>): ResolvedConfig => ({
    ...resolveConfig({ kernel: "k" }),
    ...change,
  });

  it("--nested where there is nothing to show", () => {
    const plain = system({ 1: {}, 0x8000_0001: {} });
    assert.throws(() => checkHost(plain, config({ nested: true })), HostError);
    assert.doesNotThrow(() => checkHost(plain, config({})));
    const shown: Readonly<Record<number, { ecx: number }>>[] = [
      { 1: { ecx: 1 << 5 } },
      { 0x8000_0001: { ecx: 1 << 2 } },
    ];
    for (const leaves of shown) {
      assert.doesNotThrow(() => checkHost(system(leaves), config({ nested: true })));
    }
  });

  it("--pci where no message can be sent", () => {
    const lacking = {
      supportedCpuid: () => [],
      checkExtension: (capability: number) => (capability === KVM_CAP_SIGNAL_MSI ? 0 : 64),
    } as unknown as KvmSystem;
    assert.throws(() => checkHost(lacking, config({ pci: true })), /lacks KVM_CAP_SIGNAL_MSI/);
    assert.doesNotThrow(() => checkHost(lacking, config({})));
    assert.doesNotThrow(() => checkHost(system({}), config({ pci: true })));
  });

  it("more memory than its addresses reach", () => {
    const small = system({ 0x8000_0008: { eax: 0x3024 } });
    assert.throws(
      () => checkHost(small, config({ memoryMib: 65 * 1024 })),
      (error) => error instanceof ConfigError && /36 bits, enough for 64512 MiB/.test(error.message),
    );
  });
});
