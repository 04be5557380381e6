// Needs: nothing. DESIGN.md's pictures, tables and names are the code's.
import assert from "node:assert/strict";
import { existsSync, readdirSync, statSync } from "node:fs";
import * as layout from "../../vmm/memory/layout.js";
import { filesOfTree, rows, section, textOf } from "../helpers/documents.js";

function sorted(values: Iterable<string>): string[] {
  return [...new Set(values)].sort();
}

describe("docs: DESIGN", () => {
  const picture = /```\n(\s*guest-physical[\s\S]*?)```/.exec(section("DESIGN.md", "Guest memory"))?.[1] ?? "";
  const constants = layout as unknown as Readonly<Record<string, unknown>>;

  it("its picture of guest memory has the addresses of layout.ts, all of them", () => {
    const drawn = [...picture.matchAll(/^\s*(0x[\d_a-f]+)\s+│ ([A-Z\d_]+(?:, [A-Z\d_]+)*)/gm)].flatMap(
      ([, address = "", names = ""]) =>
        names.split(", ").map((name): [string, number] => [name, Number(address.replaceAll("_", ""))]),
    );
    for (const [name, address] of drawn) assert.equal(address, constants[name], name);
    const declared = Object.keys(constants).filter((name) => name.endsWith("_GPA"));
    assert.deepEqual(sorted(drawn.map(([name]) => name)), sorted(declared));
  });

  it("its picture is in ascending order", () => {
    const addresses = [...picture.matchAll(/^\s*(0x[\d_a-f]+)\s+[│├┌]/gm)].map(([, address = ""]) =>
      Number(address.replaceAll("_", "")),
    );
    assert.ok(addresses.length > 20);
    assert.deepEqual(
      addresses,
      addresses.toSorted((a, b) => a - b),
    );
  });

  it("its table of ports has the ports and interrupts of layout.ts", () => {
    const table = [...picture.matchAll(/^ {2}(0x[\da-f]+)\S*.* (devices\/\S+)(?: +\(?(\d+)\)?)?$/gm)];
    const drawn = table.map(([, port, file, gsi]) => [Number(port), file, gsi === undefined ? undefined : Number(gsi)]);
    assert.deepEqual(drawn, [
      [layout.I8042_DATA_PORT, "devices/legacy/i8042.ts", layout.KEYBOARD_GSI],
      [layout.RTC_INDEX_PORT, "devices/legacy/cmos-rtc.ts", layout.RTC_GSI],
      [layout.SERIAL0_PORT, "devices/legacy/serial.ts", layout.SERIAL0_GSI],
      [layout.ACPI_PM1A_EVT_PORT, "devices/legacy/acpi-pm.ts", layout.ACPI_SCI_GSI],
      [layout.PCI_CONFIG_PORT, "devices/pci/config-ports.ts", undefined],
    ]);
  });

  it("its table of folders is the tree's, all rooms of vmm/ included", () => {
    const folders = rows(section("DESIGN.md", "Folders")).map(([folder = ""]) => folder);
    const isFolder = (path: string): boolean => existsSync(path) && statSync(path).isDirectory();
    assert.deepEqual(
      folders.filter((folder) => !isFolder(folder)),
      [],
    );
    const rooms = readdirSync("vmm")
      .map((name) => `vmm/${name}`)
      .filter(isFolder);
    assert.deepEqual(
      rooms.filter((room) => !folders.includes(`${room}/`)),
      [],
    );
  });

  it("the names of constants and members in its text and pictures are the code's", () => {
    const text = textOf("DESIGN.md");
    const sources = filesOfTree(".ts", ".mjs").filter((path) => /^(vmm|devices)\//.test(path));
    const code = sources.map((path) => textOf(path).replaceAll(/^\s*(?:\/\/|\/?\*).*$/gm, ""));
    const has = (word: string, where = code): boolean =>
      where.some((source) => new RegExp(`(?<!\\w)${word}\\b`).test(source));
    const members = [...text.matchAll(/\b((?:[A-Z][a-z]+)+)\.(#?[a-z]\w+)\b/g)].filter(
      ([, type = "", member]) => member !== "md" && !(type in globalThis),
    );
    assert.ok(members.length > 8, String(members.length));
    for (const [name, type = "", member = ""] of members) {
      const declaring = code.filter((source) => new RegExp(`\\b(?:class|interface) ${type}\\b`).test(source));
      assert.ok(has(member, declaring), name);
    }
    // Those of kernel configurations and of KVM's capabilities are not ours.
    const constants = [...text.matchAll(/(?<![\w`])`?([A-Z][A-Z\d]+_[A-Z\d_]+)\b/g)].map(([, name = ""]) => name);
    const foreign = (name: string): boolean => name.startsWith("CONFIG_") || has(`KVM_CAP_${name}`);
    assert.ok(constants.length > 20, String(constants.length));
    assert.deepEqual(sorted(constants.filter((name) => !foreign(name) && !has(name))), []);
  });

  it("its picture of layers has every room of vmm/", () => {
    const layers = section("DESIGN.md", "Layers");
    for (const room of readdirSync("vmm")) {
      if (room !== "bundle") assert.ok(layers.includes(`vmm/${room}`), room);
    }
  });
});
