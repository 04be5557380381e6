// Needs: hardware KVM and /dev/vhost-vsock, or the lab. Programs of the guest and of its host talk by AF_VSOCK, the host's kernel between
// them: both ways, over both transports, a reset of the driver, a snapshot and the monitor's death.
import assert from "node:assert/strict";
import { guestRunner, whyNoBoot, type GuestRunner } from "../helpers/guest-runner.js";
import { jailMode } from "../helpers/jail-lane.js";
import { skip } from "../helpers/skip.js";
import { vhostVsockProblem } from "../helpers/tap-guard.js";

const CID = 4242;
const OTHER_CID = 4243;
const BYTES = 4 * 2 ** 20;
/** Transfers before the guest is saved, and in all. */
const [FIRST, ALL] = [2, 20];
const IN_USE = `vmlet: /dev/vhost-vsock: context id ${String(CID)} is another guest's, or this host's own (EADDRINUSE)`;

describe("boot: vhost-vsock", function () {
  this.timeout(300_000);
  let guest: GuestRunner;
  let boot = "";
  /** The host's side of test/programs/vsock.c. */
  let vsock = "";

  before(async function () {
    const reason = whyNoBoot();
    if (reason !== undefined) skip(this, reason);
    guest = await guestRunner();
    const problem = guest.isLab ? undefined : vhostVsockProblem(CID);
    if (problem !== undefined) skip(this, problem);
    const { vmlinux, vsockInitramfs, vsockProgram } = guest.files;
    boot = `$VMLET boot --accel kvm --quiet --kernel ${vmlinux} --initrd ${vsockInitramfs}`;
    vsock = `timeout 100 ${vsockProgram}`;
  });

  /** Again and again, until the other side listens. */
  const until = (command: string): string =>
    `n=0; until ${command}; do n=$((n + 1)); [ $n -lt 300 ] || break; sleep 0.2; done`;
  const listens = (port: number, cid = CID): string =>
    until(`${vsock} connect ${String(port)} ${String(cid)} </dev/null >/dev/null 2>&1`);
  const sum = (file: string): string => `md5sum <${file} | cut -c1-32`;

  for (const [options, how] of [
    ["", "virtio-mmio"],
    ["--pci", "virtio-pci"],
    ["--cpus 2", "two vCPUs"],
    ["--jail strict", "in a jail"],
    ["--from-template", "from a template"],
  ] as const) {
    it(`${how}: each side connects, sends and ends first, and all bytes arrive`, async () => {
      // A program whose input is empty ends its side at once, and receives; the other one sends all and ends.
      const inGuest = `head -c ${String(BYTES)} /dev/urandom >/tmp/a; ${sum("/tmp/a")}
        vsock connect 1001 </tmp/a; vsock connect 1002 </dev/null >/tmp/b; ${sum("/tmp/b")}
        vsock accept 1003 </dev/null >/tmp/c; ${sum("/tmp/c")}; vsock accept 1004 </tmp/a; echo over`;
      const { stdout, stderr } = await guest.shell(`cd /tmp && head -c ${String(BYTES)} /dev/urandom >a
        ${vsock} accept 1001 </dev/null >b & ${vsock} accept 1002 <a & (
          ${until(`${vsock} connect 1003 ${String(CID)} <a 2>/dev/null`)}
          ${until(`${vsock} connect 1004 ${String(CID)} </dev/null >c 2>/dev/null`)}
        ) &
        timeout 120 ${boot} ${options} --vsock cid=${String(CID)} -- sh -c '${inGuest}' </dev/null; echo "status $?"; wait
        ${sum("a")}; ${sum("b")}; ${sum("c")}; rm -f a b c`);
      const [sent, got1, got2, over, status, hostSent, hostGot1, hostGot2] = stdout.split("\n");
      assert.deepEqual([over, status], ["over", "status 0"], stdout + stderr);
      assert.deepEqual([hostGot1, hostGot2], [sent, sent], stdout);
      assert.deepEqual([got1, got2], [hostSent, hostSent], stdout);
    });
  }

  it("a driver that lets go of the device and takes it again has sockets; a connection of before ends with the next word on it", async () => {
    const inGuest = `cd /sys/bus/virtio/drivers/vmw_vsock_virtio_transport && device=$(echo virtio*)
      sleep 100 | vsock accept 1005 >/dev/null 2>&1 & sleep 2; vsock connect 1001 </dev/null; sleep 4
      echo $device >unbind; echo $device >bind; vsock connect 1002 </dev/null
      vsock accept 1003 </dev/null >/dev/null; echo over`;
    const { stdout } = await guest.shell(`cd /tmp; echo again | ${vsock} accept 1002 & (
        ${vsock} accept 1001 </dev/null; { sleep 15; echo word; } | ${vsock} connect 1005 ${String(CID)} 2>&1; echo "ended $?"; ${listens(1003)}
      ) >held &
      timeout 120 ${boot} --vsock cid=${String(CID)} -- sh -c '${inGuest}' </dev/null; echo "status $?"; wait; cat held; rm held`);
    // What a program is told of an end that comes while it writes is not always the same.
    assert.match(stdout, /^again\nover\nstatus 0\n(read: Transport endpoint is not connected\nended 1|ended 0)\n$/);
  });

  it("while a guest has a context id nobody else gets it; SIGKILL of its monitor frees it, and ends its connections", async () => {
    const { stdout } = await guest.shell(`cd /tmp
      ${boot} --vsock cid=${String(CID)} -- sh -c 'vsock accept 1001 </dev/null; sleep 1000 | vsock accept 1002' </dev/null & pid=$!
      ${listens(1001)}
      (${until(`${vsock} connect 1002 ${String(CID)} </dev/null >held`)} 2>&1; echo "tries $n") >said & held=$!
      sleep 5
      ${boot} --vsock cid=${String(CID)} -- true </dev/null 2>&1 | head -2
      kill -9 $pid; wait $pid
      ${boot} --vsock cid=${String(CID)} -- echo free </dev/null; echo "status $?"
      kill $held; cat said; rm -f said held`);
    const [inUse, cure, free, status, said] = stdout.split("\n");
    assert.equal(inUse, IN_USE, stdout);
    assert.match(cure ?? "", /give this guest another one \(cid=\)/);
    assert.deepEqual([free, status], ["free", "status 0"], stdout);
    assert.match(said ?? "", /Connection reset by peer/, stdout);
  });

  it("saved in the midst of a transfer, a guest goes on with it; the one restored from it begins it anew", async () => {
    // Half of it, and a second later the other half: nearly always one is on its way.
    const inGuest = `head -c ${String(BYTES / 8)} /dev/urandom >/tmp/a; cat /tmp/a /tmp/a | md5sum | cut -c1-32; i=0
      while [ $i -lt ${String(ALL)} ]; do { cat /tmp/a; sleep 1; cat /tmp/a; } | vsock connect 1001 2>/dev/null && i=$((i + 1)) && echo sent $i; done
      vsock accept 1003 </dev/null | md5sum | cut -c1-32; echo over`;
    const begin = `export cid sums; setsid sh -c 'while :; do ${vsock} accept 1001 </dev/null 2>/dev/null | md5sum | cut -c1-32 >>$sums; done' & peer=$!
      setsid sh -c '${until(`${vsock} connect 1003 $cid <a 2>/dev/null`)}' & caller=$!`;
    const end = `kill -- -$peer -$caller 2>/dev/null; wait $peer $caller`;
    const { stdout } =
      await guest.shell(`cd /tmp && rm -rf saved control && head -c ${String(BYTES / 8)} /dev/urandom >a
      cid=${String(CID)} sums=sums1; ${begin}
      timeout 120 ${boot} --vsock cid=$cid --control control -- sh -c '${inGuest}' </dev/null >said & pid=$!
      n=0; until grep -q "sent ${String(FIRST)}" said || [ $n = 600 ]; do sleep 0.1; n=$((n + 1)); done
      $VMLET snapshot create control saved >/dev/null; echo "created $?"
      $VMLET snapshot create --watch control other 2>&1 >/dev/null | head -1
      timeout 60 $VMLET snapshot restore saved </dev/null 2>&1 | head -1
      wait $pid; echo "status $?"; ${end}
      cid=${String(OTHER_CID)} sums=sums2; ${begin}
      timeout 120 $VMLET snapshot restore saved --vsock cid=$cid </dev/null >more; echo "status $?"; ${end}
      ${sum("a")}; sed -n 1p said; tail -2 said; tail -2 more; grep -c sent more
      sort sums1 | uniq -c | sort -rn | head -1; sort sums2 | uniq -c | sort -rn | head -1; rm -rf saved control said more sums1 sums2 a`);
    const [created, watch, inUse, status, restored, hostSent, sent, got, over, gotToo, overToo, count, all, rest] =
      stdout.split("\n");
    assert.deepEqual([created, status, restored], ["created 0", "status 0", "status 0"], stdout);
    const refused =
      jailMode === undefined ? /the host's kernel serves the guest's sockets/ : /in the jail is saved whole/;
    assert.match(watch ?? "", refused);
    assert.equal(inUse, IN_USE);
    assert.deepEqual([over, overToo, got, gotToo], ["over", "over", hostSent, hostSent], stdout);
    // The host has had each of the one's transfers whole, none twice; and of the other's those that were left.
    assert.equal(all?.trim(), `${String(ALL)} ${sent ?? ""}`, stdout);
    assert.ok(Number(count) > 0 && Number(count) <= ALL - FIRST, stdout);
    const [whole, what] = rest?.trim().split(" ") ?? [];
    assert.equal(what, sent, stdout);
    // Of those that are said afterwards, one may have arrived before the guest was saved, and another have been in its rings.
    assert.ok(Number(whole) >= Number(count) - 2 && Number(whole) <= Number(count), stdout);
  });

  it("a host without it, and context ids that no guest can have: one clear error each", async function () {
    if (!guest.isLab) skip(this, "hides a device of the host: only in the lab");
    const { stdout } = await guest.shell(`mv /dev/vhost-vsock /dev/hidden
      ${boot} --vsock cid=${String(CID)} -- true </dev/null 2>&1 | head -2; mv /dev/hidden /dev/vhost-vsock
      for cid in 2 4294967295; do ${boot} --vsock cid=$cid -- true </dev/null 2>&1 | head -1; done
      $VMLET doctor | grep vhost`);
    const [none, cure, low, high, doctor] = stdout.split("\n");
    assert.equal(none, "vmlet: /dev/vhost-vsock cannot be used (ENOENT)");
    assert.match(cure ?? "", /modprobe vhost_vsock; or give the device a Unix socket \(path=\)$/);
    for (const [line, cid] of [
      [low, "2"],
      [high, "4294967295"],
    ] as const) {
      assert.equal(line, `vmlet: Socket device: context id ${cid} is not a whole number from 3 to 4294967294`);
    }
    assert.match(doctor ?? "", /^ok {4}vhost +\/dev\/vhost-net .*\/dev\/vhost-vsock/);
  });
});
