// Needs: gcc and Debian's linux-libc-dev. Every number of kvm-abi.ts, vfio-abi.ts, iommufd-abi.ts and vhost-abi.ts against the C compiler's.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as kvm from "../../vmm/sys/kvm-abi.js";
import * as iommufd from "../../vmm/sys/iommufd-abi.js";
import * as vfio from "../../vmm/sys/vfio-abi.js";
import * as vhost from "../../vmm/sys/vhost-abi.js";
import { skip } from "../helpers/skip.js";

/** Members of kvm_run's exit union, and the nested structures of others, as C spells them. */
const NESTED: Readonly<Record<string, readonly string[]>> = {
  kvm_run: ["fail_entry", "ex", "io", "mmio", "internal", "emulation_failure", "system_event", "msr"],
  kvm_guest_debug: ["arch"],
  kvm_vcpu_events: ["exception", "interrupt", "nmi", "smi", "triple_fault"],
};
const SPECIAL: Readonly<Record<string, string>> = {
  "kvm_run.io": "io",
  "kvm_run.mmio": "mmio",
  "kvm_run.internal": "internal",
  "kvm_run.fail_entry": "fail_entry",
  "kvm_run.system_event": "system_event",
  "kvm_vcpu_events.exception_has_payload": "exception_has_payload",
  "kvm_vcpu_events.exception_payload": "exception_payload",
};

function member(structure: string, field: string): string {
  const special = SPECIAL[`${structure}.${field}`];
  if (special !== undefined) return special;
  const prefix = NESTED[structure]?.find((name) => field.startsWith(`${name}_`));
  return prefix === undefined ? field : `${prefix}.${field.slice(prefix.length + 1)}`;
}

/** C expression and expected value of everything that the modules export. */
function expectations(exported: object): [name: string, expression: string, value: number][] {
  const values = Object.entries(exported) as [string, number | Readonly<Record<string, number>>][];
  return values.flatMap(([name, value]): [string, string, number][] => {
    if (typeof value === "object") {
      return Object.entries(value).map(([field, offset]) => [
        `${name}.${field}`,
        `offsetof(struct ${name}, ${member(name, field)})`,
        offset,
      ]);
    }
    if (name.startsWith("SIZEOF_")) {
      return [[name, `sizeof(struct ${name.slice("SIZEOF_".length).toLowerCase()})`, value]];
    }
    return [[name, name, value]];
  });
}

const HEADERS = ["linux/kvm.h", "linux/vfio.h", "linux/vhost.h"];
const IOMMUFD_HEADER = "linux/iommufd.h";

describe("kvm-abi", function () {
  this.timeout(30_000);

  it("every constant, size, offset and request number is the compiler's", () => {
    const expected = expectations({ ...kvm, ...vfio, ...vhost });
    assert.ok(expected.length > 300, `${String(expected.length)} values are exported`);
    assert.deepEqual(differences(expected, HEADERS), []);
  });

  it("those of iommufd, where the headers are new enough to have them", function () {
    const flags = ["-include", "linux/vfio.h", "-E", "-dM", "-"];
    const macros = execFileSync("gcc", flags, { input: "", encoding: "utf8" });
    if (!macros.includes(" VFIO_DEVICE_BIND_IOMMUFD ")) skip(this, "the kernel's headers are older than Linux 6.6");
    assert.deepEqual(differences(expectations(iommufd), [...HEADERS, IOMMUFD_HEADER]), []);
  });
});

/** What is wrong, a line each. */
function differences(expected: ReturnType<typeof expectations>, headers: readonly string[]): string[] {
  const folder = mkdtempSync(join(tmpdir(), "vmlet-test-"));
  try {
    const lines = expected.map(([, expression]) => `  printf("%llu\\n", (unsigned long long)(${expression}));`);
    const includes = ["stddef.h", "stdio.h", ...headers].map((header) => `#include <${header}>`);
    writeFileSync(join(folder, "abi.c"), [...includes, "int main(void) {", ...lines, "}"].join("\n"));
    execFileSync("gcc", ["-o", join(folder, "abi"), join(folder, "abi.c")]);
    const actual = execFileSync(join(folder, "abi"), { encoding: "utf8" }).trim().split("\n").map(Number);
    return expected.flatMap(([name, , value], i) =>
      value >>> 0 === (actual[i] ?? -1) >>> 0 ? [] : [`${name} is ${String(value)}, C says ${String(actual[i])}`],
    );
  } finally {
    rmSync(folder, { recursive: true });
  }
}
