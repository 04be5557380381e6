// Needs: nothing. With which words virtiofsd is started, by the rights and the programs that there are.
import assert from "node:assert/strict";
import { virtiofsdCommands, type VirtiofsdHost } from "../../vmm/virtio/backends/virtiofsd-command.js";

describe("virtiofsd: how it is started", () => {
  const host: VirtiofsdHost = {
    virtiofsd: "/v",
    unshare: "/unshare",
    setpriv: "/setpriv",
    perl: "/perl",
    capabilities: 0n,
    hasSubordinateIds: false,
  };
  const ADMIN = 1n << 21n;
  const CHROOT = 1n << 18n;
  const ways = (change: Partial<VirtiofsdHost>, isReadonly = false): string[] =>
    virtiofsdCommands({ ...host, ...change }, { path: "/f", isReadonly, isFile: false }).map((words) =>
      words
        .map((word) => (word.includes("syscall") ? "PROGRAM" : word))
        .join(" ")
        .replace(/ --fd=3 .*sandbox=(\w+) .*/, " $1"),
    );
  const DIES = "/setpriv --pdeathsig KILL";

  it("with the rights of root, with those of a container, with none: each way that may work, the best first", () => {
    assert.deepEqual(ways({ capabilities: ADMIN | CHROOT }), [`${DIES} /v namespace`, `${DIES} /v chroot`]);
    const own = `${DIES} /unshare --user --map-root-user`;
    const alone = [`${own} -- /v namespace`, `${own} -- /v chroot`];
    assert.deepEqual(ways({ capabilities: CHROOT }), [`${DIES} /v chroot`, ...alone]);
    assert.deepEqual(ways({}), alone);
    const auto = [`${own} --map-auto -- /v namespace`, `${own} --map-auto -- /v chroot`];
    assert.deepEqual(ways({ hasSubordinateIds: true }), [...auto, ...alone]);
    assert.deepEqual(ways({ unshare: undefined, setpriv: undefined, capabilities: CHROOT }), ["/v chroot"]);
    assert.deepEqual(ways({ unshare: undefined }), []);
  });

  it("read-only: always in a mount namespace where that is made so, or not at all", () => {
    const made = "--mount -- /perl -e PROGRAM /f /v";
    assert.equal(ways({ capabilities: ADMIN }, true)[0], `${DIES} /unshare ${made} namespace`);
    assert.equal(ways({ capabilities: CHROOT }, true)[0], `${DIES} /unshare --user --map-root-user ${made} namespace`);
    for (const lacks of [{ perl: undefined }, { unshare: undefined }]) {
      assert.deepEqual(ways({ ...lacks, capabilities: ADMIN | CHROOT }, true), []);
    }
  });

  it("the path reaches it as it is; what the guest makes is no device of this host", () => {
    const [words = []] = virtiofsdCommands(
      { ...host, capabilities: ADMIN },
      { path: "/a,b\\c=d e", isReadonly: false, isFile: false },
    );
    assert.ok(words.includes("source=/a\\,b\\\\c=d e"));
    assert.ok(words.includes("modcaps=-mknod"));
  });
});
