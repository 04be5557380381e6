// Needs: a /dev/kvm, and passt with a default route. A guest's network without rights on the host.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { countBoot } from "../helpers/booted.js";
import { PROGRAM, start, type Running } from "../helpers/program.js";
import { FETCHED_BYTES, passtsOf, userNetRig } from "../helpers/user-net-rig.js";

/** Emulated, on a machine that may be busy with other tests, `ms`. */
const BOOT_LIMIT_MS = 400_000;
/** A user who has no right beyond those of everybody. */
const ORDINARY_UID = "65534";
const HOST_PORT = 20_764;
type Program = readonly string[];
const VMLET: Program = [PROGRAM];

describe("boot: network in user mode", function () {
  this.timeout(BOOT_LIMIT_MS + 10_000);
  const { folder, fetching } = userNetRig();

  const boot = (program: Program, net: string, script: string): Running =>
    start([...program, "boot", "--quiet", "--net", net, "--", "sh", "-c", script], {}, BOOT_LIMIT_MS);

  const isRoot = (): boolean => process.getuid?.() === 0;

  /** With a /dev/kvm that everybody may open, in a mount namespace of its own. */
  function asOrdinaryUser(): Program {
    if (!isRoot()) return VMLET;
    const device = join(folder(), "kvm");
    const prepare = `test -e ${device} || mknod ${device} c 10 232; chmod 666 ${device} && mount --bind ${device} /dev/kvm &&
      exec setpriv --reuid ${ORDINARY_UID} --regid ${ORDINARY_UID} --clear-groups --inh-caps=-all "$@"`;
    return ["unshare", "--mount", "sh", "-c", prepare, "sh", ...VMLET];
  }

  it("is there without a word in the guest, and by DHCP: address, route, names, what listens on the host, and what does not", async () => {
    const script = `ip -o -4 addr show eth0 | grep -o 'inet [^ ]*'; ip route | head -1; cat /etc/resolv.conf; ${fetching()}
      ip addr flush dev eth0; : >/etc/resolv.conf; udhcpc -i eth0 -n -q >/dev/null 2>&1; ip -o -4 addr show eth0 | grep -o 'inet [^ ]*'
      grep -q ^nameserver /etc/resolv.conf && echo named; ${fetching()}; ping6 -c 1 ::1 | grep -c ttl=; timeout 60 nc 10.0.2.2 1 </dev/null 2>&1; echo "nc: $?"; sleep 100`;
    const run = boot(asOrdinaryUser(), "user", script);
    await run.until(/nc: \d+\n/);
    run.child.kill("SIGTERM");
    const { status, stdout, stderr } = await run.ended;
    const expected = [
      "inet 10.0.2.15/24",
      "default via 10.0.2.2 dev eth0 ",
      "nameserver 10.0.2.3",
      String(FETCHED_BYTES),
    ];
    // Once more, by DHCP; and IPv6, as far as it goes without a network. passt names the resolvers of the host.
    const again = ["inet 10.0.2.15/24", "named", String(FETCHED_BYTES), "1"];
    // passt 2023-03-09 refuses a connection in a way that Linux does not take for one.
    const refused = ["nc: can't connect to remote host (10.0.2.2): Connection refused", "nc: 1", ""];
    assert.deepEqual([stdout.split("\n"), stderr, status], [[...expected, ...again, ...refused], "", 143]);
    countBoot();
  });

  it("what connects to a forwarded port of the host reaches the guest; host=off hides the host; it needs no rights but those on /dev/kvm, and leaves no process behind after kill -9", async () => {
    const mtu = "4099";
    const script = `timeout 5 ${fetching()}; echo from the guest >/tmp/index.html; httpd -p 8080 -h /tmp
      cat /sys/class/net/eth0/mtu; echo ready; sleep 100`;
    const run = boot(asOrdinaryUser(), `user,host=off,mtu=${mtu},forward=${String(HOST_PORT)}:8080`, script);
    await run.until(/ready/);
    const response = await fetch(`http://127.0.0.1:${String(HOST_PORT)}/`);
    assert.equal(await response.text(), "from the guest\n");
    assert.equal(passtsOf(mtu).length, 1);
    // Each of those programs has become the next one.
    const status = readFileSync(`/proc/${String(run.child.pid)}/status`, "latin1");
    if (isRoot()) assert.match(status, /^Uid:\t65534\t65534\t65534\t65534$/m);
    assert.match(status, /^CapEff:\t0+$/m);
    run.child.kill("SIGKILL");
    const { stdout, stderr } = await run.ended;
    assert.equal(stdout, "0\n4099\nready\n");
    assert.match(stderr, /^(Terminated\n)?$/);
    for (let tries = 0; passtsOf(mtu).length > 0 && tries < 100; tries++) await sleep(20);
    assert.deepEqual(passtsOf(mtu), []);
    countBoot();
  });
});
