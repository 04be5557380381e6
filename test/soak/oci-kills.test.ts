// Needs: root, virtiofsd, iproute2, Docker's packages, a /dev/kvm on which guests run, a built program, busybox. Containers whose
// processes are killed at random moments, SOAK times (default: 200) of which a fifth below a Docker engine.
import assert from "node:assert/strict";
import { ContainerKills, whyNoKills } from "../helpers/container-kills.js";
import { whyNoDocker } from "../helpers/docker-host.js";
import { EngineKills } from "../helpers/engine-kills.js";
import { skip } from "../helpers/skip.js";

const KILLS = Number(process.env["SOAK"] ?? "") || 200;
const ENGINE_KILLS = Math.ceil(KILLS / 5);
const SEED = Number(process.env["SEED"] ?? "") || Date.now() % 2 ** 32;

describe("soak: containers, killed", function () {
  this.timeout(KILLS * 120_000);

  it(`vmlet-runtime's commands and processes, ${String(KILLS - ENGINE_KILLS)} times, seed ${String(SEED)}`, async function () {
    const why = whyNoKills();
    if (why !== undefined) return skip(this, why);
    const kills = new ContainerKills(SEED);
    const bad: string[] = [];
    try {
      for (let index = 0; index < KILLS - ENGINE_KILLS; index++) {
        const { what, left } = await kills.round(index);
        if (left.length > 0) bad.push(what, ...left);
      }
    } finally {
      kills.close();
    }
    assert.deepEqual(bad, []);
  });

  it(`an engine's, containerd's, shim's and the runtime's, ${String(ENGINE_KILLS)} times, seed ${String(SEED)}`, async function () {
    const why = whyNoKills() ?? whyNoDocker();
    if (why !== undefined) return skip(this, why);
    const kills = new EngineKills(SEED);
    const bad: string[] = [];
    try {
      await kills.open();
      for (let index = 0; index < ENGINE_KILLS; index++) {
        const { what, left } = await kills.round(index);
        if (left.length > 0) bad.push(what, ...left);
      }
    } finally {
      await kills.close();
    }
    assert.deepEqual(bad, []);
  });
});
