// Needs: hardware KVM and /dev/vhost-net, or the lab. The host's kernel moves a guest's frames, and lets go of them when the
// guest is saved, limited, or goes on another way.
import assert from "node:assert/strict";
import { guestRunner, whyNoBoot, type GuestRunner } from "../helpers/guest-runner.js";
import { skip } from "../helpers/skip.js";
import { tapProblem, vhostProblem } from "../helpers/tap-guard.js";

const HOST = "172.31.248.1";
const GUEST = "172.31.248.2";
const TAP = "vhost0";
/** Pings before the guest is saved, and in all. */
const [FIRST, ALL] = [3, 16];

describe("boot: vhost-net", function () {
  this.timeout(200_000);
  let guest: GuestRunner;
  let boot = "";

  before(async function () {
    const reason = whyNoBoot();
    if (reason !== undefined) skip(this, reason);
    guest = await guestRunner();
    const problem = guest.isLab ? undefined : (tapProblem() ?? vhostProblem());
    if (problem !== undefined) skip(this, problem);
    const { vmlinux, initramfs } = guest.files;
    boot = `timeout 120 $VMLET boot --accel kvm --quiet --kernel ${vmlinux} --initrd ${initramfs}`;
    const make = `tunctl -t ${TAP} >/dev/null && ifconfig ${TAP} ${HOST} netmask 255.255.255.0 up`;
    assert.equal((await guest.shell(make)).status, 0);
  });
  after(async () => {
    if (boot !== "") await guest.shell(`tunctl -d ${TAP}`);
  });

  /** A guest that pings this host until it has had ALL answers, and says each; none may be lost for good. */
  const pings = `ip link set eth0 up && ip addr add ${GUEST}/24 dev eth0; i=0
    while [ $i -lt ${String(ALL)} ]; do ping -c 1 -W 3 ${HOST} >/dev/null && i=$((i + 1)) && echo answer $i; sleep 0.5; done; echo over`;
  const until = (text: string, file: string): string =>
    `n=0; until grep -q "${text}" ${file} || [ $n = 600 ]; do sleep 0.1; n=$((n + 1)); done`;

  for (const [before, after, where] of [
    ["on", "on", ""],
    ["on", "off", ""],
    ["off", "on", ""],
    ["on", "on", "--pci"],
  ] as const) {
    it(
      `saved with vhost ${before}, in the midst of its frames, a guest goes on with vhost ${after} ${where}`.trim(),
      async () => {
        const { stdout } = await guest.shell(`cd /tmp && rm -rf saved control answers more
        ${boot} ${where} --net tap=${TAP},vhost=${before} --control control -- sh -c '${pings}' </dev/null >answers & pid=$!
        ${until(`answer ${String(FIRST)}`, "answers")}
        $VMLET snapshot create --stop control saved >/dev/null; echo "created $?"; wait $pid
        timeout 120 $VMLET snapshot restore saved --net net0=tap=${TAP},vhost=${after} --report report </dev/null >more; echo "status $?"
        tail -1 more; grep -c answer more; cat report; rm -rf saved control`);
        const [created, status, last, count] = stdout.split("\n");
        assert.deepEqual([created, status, last], ["created 0", "status 0", "over"], stdout);
        assert.ok(Number(count) > 0 && Number(count) <= ALL - FIRST, stdout);
        const { devices } = JSON.parse(stdout.slice(stdout.indexOf("{"), stdout.lastIndexOf("}") + 1)) as {
          devices: { net0: Record<string, number> };
        };
        const { rx_frames: received = 0, tx_frames: sent = 0 } = devices.net0;
        // Some may have been answered before the guest was saved, and said afterwards.
        assert.ok(2 * received >= Number(count) && 2 * sent >= Number(count), stdout);
      },
    );
  }

  it("in a jail: frames go past the monitor, which is sealed before the driver hands the rings over", async () => {
    const { stdout } = await guest.shell(`${boot} --jail strict --net tap=${TAP},vhost=on -- sh -c \
      'ip link set eth0 up && ip addr add ${GUEST}/24 dev eth0 && ping -c 3 ${HOST} | grep -c "3 packets received"' </dev/null 2>&1; echo "status $?"`);
    assert.equal(stdout, "1\nstatus 0\n");
  });

  it("without an interface's right, or with limits, the choice is one clear error", async () => {
    const { stdout } = await guest.shell(`
      ${boot} --net tap=${TAP},vhost=on,bw=1M -- true </dev/null 2>&1 | head -1
      ${boot} --net tap=${TAP},vhost=perhaps -- true </dev/null 2>&1 | head -1`);
    assert.equal(
      stdout,
      "vmlet: Network device 1: vhost is on, but a rate limiter is this process's\n" +
        'vmlet: Network device 1: vhost "perhaps" is not one of auto, off, on\n',
    );
  });

  it("a host without it: vhost=on is refused with the cure, auto goes without", async function () {
    if (!guest.isLab) skip(this, "hides a device of the host: only in the lab");
    const { stdout } = await guest.shell(`mv /dev/vhost-net /dev/hidden
      ${boot} --net tap=${TAP},vhost=on -- true </dev/null 2>&1 | head -2
      ${boot} --net tap=${TAP} -- sh -c 'ip link set eth0 up && ip addr add ${GUEST}/24 dev eth0 && ping -c 1 ${HOST} | grep -c "1 packets received"' </dev/null
      echo "status $?"; mv /dev/hidden /dev/vhost-net`);
    assert.match(
      stdout,
      /^vmlet: \/dev\/vhost-net cannot be used \(ENOENT\)\n.*modprobe vhost_net; or say vhost=off\n1\nstatus 0\n$/s,
    );
  });
});
