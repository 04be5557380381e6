// Needs: a /dev/kvm, a default route, and for most of it a passt that speaks vhost-user (2025_01_21 or newer). A network in user
// mode whose frames go past the monitor.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { Report } from "../../vmm/cli/report.js";
import { passtWithVhostUser } from "../../vmm/virtio/backends/passt-program.js";
import { countBoot } from "../helpers/booted.js";
import { PROGRAM, start, type Running } from "../helpers/program.js";
import { skip } from "../helpers/skip.js";
import { FETCHED_BYTES, passtsOf, userNetRig } from "../helpers/user-net-rig.js";

/** Emulated, on a machine that may be busy with other tests, `ms`. */
const BOOT_LIMIT_MS = 400_000;
const HOST_PORT = 20_765;
/** By which this test's passts are known. */
const MTU = "4093";

describe("boot: network in user mode by vhost-user", function () {
  this.timeout(BOOT_LIMIT_MS + 10_000);
  const { folder, fetching } = userNetRig();

  const vmlet = (...words: readonly string[]): Running => start([PROGRAM, ...words], {}, BOOT_LIMIT_MS);
  const net = (more = ""): string => `user,mtu=${MTU},forward=${String(HOST_PORT)}:8080${more}`;
  const serving = "echo from the guest >/tmp/index.html; httpd -p 8080 -h /tmp";

  async function fetched(): Promise<string> {
    return (await fetch(`http://127.0.0.1:${String(HOST_PORT)}/`)).text();
  }

  async function allGone(): Promise<void> {
    for (let tries = 0; passtsOf(MTU).length > 0 && tries < 100; tries++) await sleep(20);
    assert.deepEqual(passtsOf(MTU), []);
  }

  it("a passt that is too old: vhost=on is one error with its version and a cure, before anything is made", function () {
    if (passtWithVhostUser() !== undefined) skip(this, "the passt of this host speaks vhost-user");
    const { status, stderr } = spawnSync(PROGRAM, ["boot", "--quiet", "--net", net(",vhost=on"), "--", "true"], {
      encoding: "utf8",
    });
    assert.match(
      stderr,
      /^vmlet: The passt that is installed does not speak vhost-user \(.+\)\n.*2025_01_21 or newer.*vhost=off\n$/,
    );
    assert.notEqual(status, 0);
  });

  describe("with a passt that speaks it", () => {
    before(function () {
      if (passtWithVhostUser() === undefined)
        skip(this, "the passt of this host does not speak vhost-user: 2025_01_21 or newer does");
    });

    for (const bus of [[], ["--pci"]]) {
      it(
        `both ways, and names; no frame passes through the monitor; nothing is left after kill -9 ${bus.join("")}`.trim(),
        async () => {
          const script = `ip -o -4 addr show eth0 | grep -o 'inet [^ ]*'; ${fetching()}; ${serving}; timeout 60 nc 10.0.2.2 1 </dev/null 2>&1
          echo "nc: $?"; echo ready; sleep 100`;
          const run = vmlet("boot", "--quiet", ...bus, "--net", net(",vhost=on"), "--", "sh", "-c", script);
          await run.until(/ready/);
          assert.equal(await fetched(), "from the guest\n");
          const [passt = 0, ...others] = passtsOf(MTU);
          assert.deepEqual(others, []);
          assert.match(readFileSync(`/proc/${String(passt)}/cmdline`, "latin1"), /--vhost-user\0/);
          run.child.kill("SIGKILL");
          const { stdout, stderr } = await run.ended;
          const refused = ["nc: can't connect to remote host (10.0.2.2): Connection refused", "nc: 1"];
          assert.deepEqual(
            stdout.split("\n"),
            ["inet 10.0.2.15/24", String(FETCHED_BYTES), ...refused, "ready", ""],
            stderr,
          );
          await allGone();
          countBoot();
        },
      );
    }

    it("a passt that dies: its link is down, one line says so, and the guest lives on", async () => {
      const report = join(folder(), "report");
      const script = `${fetching()}; echo ready; while [ "$(cat /sys/class/net/eth0/carrier)" = 1 ]; do sleep 0.2; done; echo down`;
      const run = vmlet("boot", "--quiet", "--net", net(",vhost=on"), "--report", report, "--", "sh", "-c", script);
      await run.until(/ready/);
      for (const pid of passtsOf(MTU)) process.kill(pid, "SIGKILL");
      const { stdout, stderr } = await run.ended;
      assert.equal(stdout, `${String(FETCHED_BYTES)}\nready\ndown\n`, stderr);
      assert.equal(stderr, "vmlet: net0: its network is gone: passt has ended\n");
      const { devices } = JSON.parse(readFileSync(report, "utf8")) as Report;
      assert.equal(devices["net0"]?.["rx_frames"], 0);
      countBoot();
    });

    it("a passt that is stopped does not hold up a guest that goes", async () => {
      const run = vmlet(
        "boot",
        "--quiet",
        "--net",
        net(",vhost=on"),
        "--",
        "sh",
        "-c",
        "echo ready; sleep 2; ip link set eth0 down; reboot -f",
      );
      await run.until(/ready/);
      for (const pid of passtsOf(MTU)) process.kill(pid, "SIGSTOP");
      const start = performance.now();
      await run.ended;
      assert.ok(performance.now() - start < BOOT_LIMIT_MS / 4);
      await allGone();
    });

    for (const [before, after] of [
      ["on", "off"],
      ["on", "on"],
      ["off", "on"],
    ] as const) {
      it(`saved with vhost ${before}, a guest goes on with vhost ${after}`, async () => {
        const [saved, control] = [join(folder(), `${before}-${after}`), join(folder(), "control")];
        rmSync(control, { force: true });
        const script = `${serving}; ${fetching()}; echo ready; until [ -e /tmp/stop ]; do sleep 0.5; done`;
        const run = vmlet(
          "boot",
          "--quiet",
          "--net",
          net(`,vhost=${before}`),
          "--control",
          control,
          "--",
          "sh",
          "-c",
          script,
        );
        await run.until(/ready/);
        const made = spawnSync(PROGRAM, ["snapshot", "create", "--stop", control, saved], { encoding: "utf8" });
        assert.equal(made.status, 0, made.stderr);
        assert.ok(existsSync(saved));
        await run.ended;
        await allGone();
        const again = vmlet(
          "snapshot",
          "restore",
          saved,
          "--net",
          `net0=${net(`,vhost=${after}`).replace(`mtu=${MTU},`, "")}`,
        );
        let text = "";
        for (let tries = 0; text === "" && tries < 200; tries++) {
          assert.equal(again.child.exitCode, null);
          text = await fetched().catch(() => sleep(100).then(() => ""));
        }
        assert.equal(text, "from the guest\n");
        again.child.kill("SIGTERM");
        await again.ended;
        countBoot();
      });
    }
  });
});
