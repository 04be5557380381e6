// Needs: nothing. Which volumes a snapshot may hold mounted for a program that comes again.
import assert from "node:assert/strict";
import { canHoldMounts, countSetUpRequests, heldMountsKey } from "../../vmm/sdk/held-mounts.js";
import type { CommandSpec } from "../../vmm/sdk/command-spec.js";
import type { VmSpec, VolumeSpec } from "../../vmm/sdk/vm-spec.js";

const volume = (guestPath: string, change: Partial<VolumeSpec> = {}): VolumeSpec => {
  return { hostPath: "/here", guestPath, isReadonly: false, isFile: false, ...change };
};

const main = (workingDirectory = "/", program = "true"): CommandSpec => {
  return { argv: [program], env: [], workingDirectory, user: "0", hasTerminal: false, isInteractive: false };
};

/** A VM with these parts; what it is besides does not matter here. */
const vm = (parts: Partial<VmSpec>): VmSpec => {
  const root = { kind: "image", manifest: "/m" } as const;
  const defaults = { env: [], workingDirectory: "/", user: "0" };
  const none = { root, defaults, volumes: [], tmpfs: [], main: main(), isReadonly: false, world: undefined };
  return { ...none, ...parts } as unknown as VmSpec;
};

describe("held mounts", () => {
  it("none, and folders that nothing looks into before the program runs", () => {
    const tmpfs = [{ guestPath: "/t", options: "" }];
    assert.ok(canHoldMounts(vm({})));
    assert.ok(canHoldMounts(vm({ volumes: [volume("/a"), volume("/ab"), volume("/t/c")], tmpfs, main: main("/b") })));
    assert.ok(canHoldMounts(vm({ volumes: [volume("/a")], main: undefined })));
  });

  it("not a file, not one in another one, not one that has the program or its working directory", () => {
    const refused = [
      { volumes: [volume("/a", { isFile: true })] },
      { volumes: [volume("/a"), volume("/a/b")] },
      { volumes: [volume("/a")], tmpfs: [{ guestPath: "/a/t", options: "" }] },
      { volumes: [volume("/a")], main: main("/a") },
      { volumes: [volume("/a")], main: main("/a/b") },
      { volumes: [volume("/a")], main: main("/", "/a/program") },
      { world: { hosts: [], sysctls: [] } },
    ];
    for (const change of refused) assert.ok(!canHoldMounts(vm(change)), JSON.stringify(change));
  });

  it("places, read-only and options make another snapshot; folders of this host do not", () => {
    const tmpfs = [{ guestPath: "/t", options: "size=1m" }];
    const key = (volumes: readonly VolumeSpec[], more = tmpfs, isReadonly = false) =>
      String(heldMountsKey(vm({ volumes, tmpfs: more, isReadonly })));
    const one = key([volume("/a")]);
    assert.equal(key([volume("/a", { hostPath: "/there" })]), one);
    const others = [
      key([volume("/b")]),
      key([volume("/a", { isReadonly: true })]),
      key([volume("/a")], []),
      key([volume("/a"), volume("/b")]),
      key([volume("/a")], [{ guestPath: "/t", options: "size=2m" }]),
      key([volume("/a")], tmpfs, true),
    ];
    assert.equal(new Set([one, ...others]).size, 7);
    assert.equal(heldMountsKey(vm({})), undefined);
    assert.equal(heldMountsKey(vm({ isReadonly: true })), undefined, "another kind of guest");
    assert.equal(countSetUpRequests(vm({ volumes: [volume("/a"), volume("/b")], tmpfs })), 3);
    assert.equal(countSetUpRequests(vm({ tmpfs, isReadonly: true })), 3);
  });
});
