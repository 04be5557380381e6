// Needs: nothing. Who may import whom: DESIGN.md, "Layers".
import assert from "node:assert/strict";
import { readFileSync, readdirSync } from "node:fs";
import { dirname, join, normalize } from "node:path";

interface Import {
  readonly from: string;
  /** Path in the tree, or the package's name. */
  readonly to: string;
  readonly isTypeOnly: boolean;
}

const files = ["vmm", "devices", "bench", "test"].flatMap((folder) =>
  readdirSync(folder, { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(".ts"))
    .map((name) => join(folder, name)),
);

const imports: Import[] = files.flatMap((from) => {
  const text = readFileSync(from, "utf8");
  const found = text.matchAll(/^(import|export)( type)?[^;]*?from "([^"]+)"|import\("([^"]+)"\)/gms);
  return [...found].map((match): Import => {
    const target = match[3] ?? match[4] ?? "";
    const to = target.startsWith(".") ? normalize(join(dirname(from), target)).replace(/\.js$/, ".ts") : target;
    return { from, to, isTypeOnly: match[2] !== undefined };
  });
});

/** The rooms of vmm/ from the top floor down: each uses what is under it, and its own floor. */
const FLOORS: readonly (readonly string[])[] = [
  ["cli.ts", "cli/"],
  ["oci/", "firecracker/"],
  ["doctor/"],
  ["index.ts", "sdk/"],
  ["lab/"],
  ["agent/"],
  ["image/"],
  ["snapshot/"],
  ["machine/"],
  ["virtio/"],
  ["pci/"],
  ["vcpu/"],
  ["fixups/"],
  ["kvm/", "x86/", "memory/"],
  ["jail/"],
  ["sys/"],
  ["host/"],
  ["config/"],
  ["errors.ts"],
];

/** The floor of a file of vmm/, 0 at the top. */
function floorOf(file: string): number {
  const inside = file.replace(/^vmm\//, "");
  return FLOORS.findIndex((rooms) =>
    rooms.some((room) => (room.endsWith("/") ? inside.startsWith(room) : inside === room)),
  );
}

function violations(isWrong: (edge: Import) => boolean): string[] {
  return imports.filter(isWrong).map(({ from, to }) => `${from} imports ${to}`);
}

describe("imports", () => {
  it("finds the tree", () => {
    assert.ok(files.length > 60 && imports.length > 200);
  });

  it("every file of the monitor is in a room", () => {
    assert.deepEqual(
      files.filter((file) => file.startsWith("vmm/") && floorOf(file) < 0),
      [],
    );
  });

  it("a room uses only rooms under it, types included", () => {
    assert.deepEqual(
      violations(({ from, to }) => from.startsWith("vmm/") && to.startsWith("vmm/") && floorOf(to) < floorOf(from)),
      [],
    );
  });

  it("devices know nothing of the monitor, of KVM or of the operating system", () => {
    assert.deepEqual(
      violations(({ from, to }) => from.startsWith("devices/") && !to.startsWith("devices/")),
      [],
    );
  });

  it("contracts import nothing", () => {
    assert.deepEqual(
      violations(({ from }) => from === "devices/contracts.ts"),
      [],
    );
  });

  it("koffi is loaded in vmm/sys/koffi.ts alone", () => {
    assert.deepEqual(
      violations(({ from, to }) => /koffi/.test(to) && from.startsWith("vmm/") && !from.startsWith("vmm/sys/")),
      [],
    );
    assert.deepEqual(
      violations(({ to }) => to === "koffi" || to.startsWith("@koromix")),
      [],
    );
  });

  it("x86 is pure but for the file that it reads: guest memory, layout, ABI offsets and errors only", () => {
    const allowed = [
      "vmm/x86/",
      "vmm/memory/layout.ts",
      "vmm/memory/advice.ts",
      "vmm/memory/e820.ts",
      "vmm/config/defaults.ts",
      "vmm/host/file-kinds.ts",
      "vmm/host/shell-word.ts",
      "vmm/errors.ts",
      "vmm/sys/kvm-abi.ts",
      "devices/",
    ];
    assert.deepEqual(
      violations(
        ({ from, to, isTypeOnly }) =>
          from.startsWith("vmm/x86/") &&
          from !== "vmm/x86/file-image.ts" &&
          !isTypeOnly &&
          !allowed.some((prefix) => to.startsWith(prefix)),
      ),
      [],
    );
  });

  it("of the monitor, sys knows what the host says and no more, kvm what is below it", () => {
    assert.deepEqual(
      violations(
        ({ from, to }) =>
          from.startsWith("vmm/sys/") && to.startsWith("vmm/") && !/^vmm\/(sys\/|host\/|errors)/.test(to),
      ),
      [],
    );
    const below = /^vmm\/(sys|kvm|memory)\/|^vmm\/errors|^devices\/(contracts|state)/;
    assert.deepEqual(
      violations(
        ({ from, to, isTypeOnly }) =>
          from.startsWith("vmm/kvm/") && to.includes("/") && !isTypeOnly && !to.startsWith("node:") && !below.test(to),
      ),
      [],
    );
  });

  it("nothing imports tests, but for benches that play the guest; only benches import benches", () => {
    assert.deepEqual(
      violations(
        ({ from, to }) =>
          to.startsWith("test/") &&
          !from.startsWith("test/") &&
          !(from.startsWith("bench/") && to.startsWith("test/helpers/")),
      ),
      [],
    );
    assert.deepEqual(
      violations(({ from, to }) => to.startsWith("bench/") && !/^(bench|test)\//.test(from)),
      [],
    );
  });

  it("there are no cycles, of types neither", () => {
    const graph = new Map<string, string[]>();
    for (const { from, to } of imports) graph.set(from, [...(graph.get(from) ?? []), to]);
    const done = new Set<string>();
    const visit = (file: string, path: readonly string[]): void => {
      assert.ok(!path.includes(file), `cycle: ${[...path, file].join(" -> ")}`);
      if (done.has(file)) return;
      for (const next of graph.get(file) ?? []) visit(next, [...path, file]);
      done.add(file);
    };
    for (const file of files) visit(file, []);
  });
});
