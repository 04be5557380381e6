// Needs: root, virtiofsd, iproute2, a /dev/kvm on which guests run, a built program, busybox; Docker's packages for its second half. Containers
// whose processes are killed at any moment leave nothing that delete --force, or the engine, does not remove. test/soak has the
// same 200 times.
import assert from "node:assert/strict";
import { countBoot } from "../helpers/booted.js";
import { ContainerKills, whyNoKills } from "../helpers/container-kills.js";
import { whyNoDocker } from "../helpers/docker-host.js";
import { EngineKills } from "../helpers/engine-kills.js";
import { skip } from "../helpers/skip.js";

/** Of a boot on a host that is busy with other tests. */
const LIMIT_MS = 480_000;
const KILLS = 8;
const ENGINE_KILLS = 3;

describe("oci runtime, killed", function () {
  this.timeout(LIMIT_MS);

  it("after a kill at any moment delete --force leaves no process, mount, group, interface, socket or file", async function () {
    const why = whyNoKills();
    if (why !== undefined) return skip(this, why);
    const seed = Date.now() % 2 ** 32;
    const kills = new ContainerKills(seed);
    try {
      for (let index = 0; index < KILLS; index++) {
        const { what, left } = await kills.round(index);
        assert.deepEqual(left, [], `seed ${String(seed)}, ${what}`);
      }
      countBoot();
    } finally {
      kills.close();
    }
  });

  it("an engine one of whose processes was killed removes the container and all that it was", async function () {
    const why = whyNoKills() ?? whyNoDocker();
    if (why !== undefined) return skip(this, why);
    const seed = Date.now() % 2 ** 32;
    const kills = new EngineKills(seed, ["shim", "monitor", "runtime"]);
    try {
      await kills.open();
      for (let index = 0; index < ENGINE_KILLS; index++) {
        const { what, left } = await kills.round(index);
        assert.deepEqual(left, [], `seed ${String(seed)}, ${what}`);
      }
    } finally {
      await kills.close();
    }
  });
});
