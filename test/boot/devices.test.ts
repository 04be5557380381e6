// Needs: hardware KVM, or the lab. Linux's own drivers against network, sockets, console, entropy and balloon.
import assert from "node:assert/strict";
import type { MetricsLine } from "../../vmm/cli/metrics.js";
import { guestRunner, whyNoBoot, type GuestRunner } from "../helpers/guest-runner.js";
import { skip } from "../helpers/skip.js";
import { tapProblem, vhostProblem } from "../helpers/tap-guard.js";

const SOCKET = "/tmp/vmlet-test.sock";
const HOST = "172.31.249.1";
const GUEST = "172.31.249.2";
/** `bytes` of each transfer: some times what the rings hold. */
const TRANSFER = 2 ** 20;

describe("boot: devices", function () {
  this.timeout(200_000);
  let guest: GuestRunner;
  /** Starts a boot of the package's kernel in a shell command; options follow. */
  let boot: string;

  before(async function () {
    const reason = whyNoBoot();
    if (reason !== undefined) skip(this, reason);
    guest = await guestRunner();
    const { vmlinux, initramfs } = guest.files;
    boot = `timeout 120 $VMLET boot --accel kvm --quiet --kernel ${vmlinux} --initrd ${initramfs}`;
  });

  for (const [cpus, vhost] of [
    [1, "off"],
    [1, "on"],
    [2, "on"],
  ] as const) {
    it(`network, ${String(cpus)} vCPU, vhost ${vhost}: pings and TCP both ways over a TAP interface that goes with the VM`, async function () {
      const problem = guest.isLab ? undefined : (tapProblem() ?? (vhost === "on" ? vhostProblem() : undefined));
      if (problem !== undefined) skip(this, problem);
      const script = `ip link set eth0 up && ip addr add ${GUEST}/24 dev eth0
        ping -c 2 ${HOST} | grep -o '2 packets received'
        nc ${HOST} 7001 </dev/null >/tmp/a; md5sum </tmp/a
        head -c ${String(TRANSFER)} /dev/urandom >/tmp/b; md5sum </tmp/b; nc ${HOST} 7002 </tmp/b
        nc ${HOST} 7003 </dev/null; cat /sys/class/net/eth0/address /sys/class/net/eth0/mtu`;
      const net = `tap=auto,ip=${HOST}/24,mac=52:54:00:00:00:07,mtu=1400,vhost=${vhost}`;
      const { stdout } = await guest.shell(`
        node ${guest.files.programs}/net-peer.mjs ${GUEST} ${String(TRANSFER)} >/tmp/peer & peer=$!
        ${boot} --cpus ${String(cpus)} --net ${net} --report /tmp/report -- sh -c "${script}" </dev/null; echo "status $?"
        kill $peer; cat /tmp/peer /tmp/report; ls /sys/class/net | grep -c vmlet`);
      const lines = stdout.split("\n");
      assert.equal(lines[0], "2 packets received", stdout);
      const sums = [lines[1], lines[2], lines[3]].map((line) => line?.split(" ")[0]);
      assert.match(lines[4] ?? "", /^3 packets transmitted, 3 /);
      assert.deepEqual(lines.slice(5, 8), ["52:54:00:00:00:07", "1400", "status 0"]);
      // What the host sent has arrived, and what the guest sent, too.
      assert.deepEqual([sums[0], sums[1]], [lines[8], sums[2]]);
      const { devices } = JSON.parse(stdout.slice(stdout.indexOf("{"), stdout.lastIndexOf("}") + 1)) as {
        devices: { net0: Record<string, number> };
      };
      const { rx_bytes = 0, tx_bytes = 0, rx_errors, tx_errors, failures, notifications = 0 } = devices.net0;
      assert.ok(rx_bytes > TRANSFER && tx_bytes > TRANSFER);
      assert.deepEqual([rx_errors, tx_errors, failures], [0, 0, 0]);
      // Frames that the host's kernel moves wake nobody here, but those of a guest that has been idle.
      if (vhost === "on") assert.ok(notifications < 50, stdout);
      assert.equal(lines.at(-2), "0", "the interface is still there");
    });
  }

  // test/kvm/virtio.test.ts has more sizes, with rings in the last page of each.
  it("a guest of 9 GiB uses a disk and the entropy device", async () => {
    // As much as the guest has in use for its pages' structures is touched, no more.
    const { stdout } = await guest.shell(`
      truncate -s 4M /tmp/large
      ${boot} --memory 9G --rng --disk path=/tmp/large -- sh -c '
        dd if=/dev/hwrng of=/dev/vda bs=4k count=4 2>/dev/null && dd if=/dev/vda bs=4k count=4 2>/dev/null | md5sum
        grep MemTotal /proc/meminfo' </dev/null
      echo "status $?"; head -c 16384 /tmp/large | md5sum; rm /tmp/large`);
    const [inside, memory = "", status, outside] = stdout.split("\n");
    assert.equal(status, "status 0", stdout);
    assert.equal(inside, outside);
    assert.ok(Number(/\d+/.exec(memory)?.[0]) > 0.9 * 9 * 2 ** 20, memory);
  });

  it("sockets: the guest reaches a host program and a host program the guest; the socket file goes", async () => {
    const script = `head -c 1048576 /dev/urandom >/tmp/a; md5sum </tmp/a; vsock connect 1234 </tmp/a; vsock echo 5000`;
    const { stdout } = await guest.shell(`rm -f ${SOCKET}*
      node ${guest.files.programs}/vsock-peer.mjs ${SOCKET} >/tmp/peer & peer=$!
      timeout 120 $VMLET boot --accel kvm --quiet --kernel ${guest.files.vmlinux} --initrd ${guest.files.vsockInitramfs} \\
        --vsock cid=7,path=${SOCKET} -- sh -c "${script}" </dev/null; echo "status $?"
      wait $peer; cat /tmp/peer; ls ${SOCKET}; rm -f ${SOCKET}_1234`);
    const [sent = "", answered, ...rest] = stdout.split("\n");
    assert.equal(sent.split(" ")[0], answered, stdout);
    assert.deepEqual(rest, ["1048576 bytes", "status 0", "OK PORT, the same bytes came back", ""]);
  });

  it("the socket file goes on a signal, too; one that is there already is refused", async () => {
    const { stdout } = await guest.shell(`rm -f ${SOCKET}
      ${boot} --vsock cid=3,path=${SOCKET} -- sh -c 'echo ready; sleep 100' </dev/null >/tmp/out & pid=$!
      until grep -q ready /tmp/out; do sleep 1; done; ls ${SOCKET}
      ${boot} --vsock cid=3,path=${SOCKET} -- true </dev/null 2>&1 | head -1
      kill -TERM $pid; wait $pid; echo "status $?"; ls ${SOCKET} 2>/dev/null`);
    assert.equal(stdout, `${SOCKET}\nvmlet: vsock socket ${SOCKET}: exists already\nstatus 143\n`);
  });

  it("virtio console: the kernel's log and output, all of it, and a command's input beside it", async () => {
    const lines = Array.from({ length: 3000 }, (_, i) => `line ${String(i)}\n`).join("");
    // The command itself has pipes.
    const script = "tty; md5sum; seq 1 20000 >/tmp/n; md5sum </tmp/n; sleep 1; cat /tmp/n >/dev/hvc0";
    const { status, stdout, stderr, report } = await guest.boot(["--console", "virtio", "--", "sh", "-c", script], {
      stdin: lines,
    });
    const { createHash } = await import("node:crypto");
    const md5 = (text: string): string => `${createHash("md5").update(text).digest("hex")}  -\n`;
    const numbers = Array.from({ length: 20_000 }, (_, i) => `${String(i + 1)}\n`).join("");
    assert.equal(status, 0, `${stderr}${stdout.slice(-3000)}`);
    assert.match(stdout, /Run \/init as init process/);
    const expected = `not a tty\n${md5(lines)}${md5(numbers)}${numbers}`;
    assert.equal(stdout.slice(-expected.length), expected);
    assert.ok((report?.devices["console0"]?.["output_bytes"] ?? 0) > numbers.length);
  });

  it("entropy: /dev/hwrng gives bytes, each time others; a panic is seen on a virtio console", async () => {
    const script = `cat /sys/class/misc/hw_random/rng_current
      head -c 4096 /dev/hwrng | md5sum; head -c 4096 /dev/hwrng | md5sum; sleep 1; echo c >/proc/sysrq-trigger`;
    const options = ["--console", "virtio", "--rng"];
    const { status, stdout, report } = await guest.boot([...options, "--", "sh", "-c", script]);
    assert.match(stdout, /^virtio_rng\.0\r?$/m);
    // Lines of the kernel's log may stand between.
    const [first, second, ...more] = stdout.match(/^[0-9a-f]{32} /gm) ?? [];
    assert.ok(first !== undefined && second !== undefined && more.length === 0, stdout);
    assert.notEqual(first, second);
    assert.ok((report?.devices["rng0"]?.["bytes"] ?? 0) >= 8192);
    assert.match(stdout, /Kernel panic - not syncing: sysrq triggered crash/);
    assert.deepEqual([status, report?.outcome], [101, "panic"]);
  });

  it("virtio console on a terminal: its size, a new size, keys, Ctrl-A x; nothing is left behind", async function () {
    if (guest.terminal === undefined) skip(this, "needs the lab's terminal");
    const script = `stty size; until stty size | grep -q 40; do sleep 1; done; stty size; read a; echo "read <$a>"; sleep 100`;
    let step = 0;
    const { status, stdout } = await guest.terminal(
      `rm -f ${SOCKET}; ${boot} --console virtio --vsock cid=3,path=${SOCKET} -- sh -c '${script}'; echo "status $?"; ls ${SOCKET}`,
      (text, command) => {
        if (step === 0 && text.includes("33 101")) {
          step++;
          command.resize(40, 90);
        } else if (step === 1 && text.includes("40 90")) {
          step++;
          command.input("abc\r");
        } else if (step === 2 && text.includes("read <abc>")) {
          step++;
          command.input("\x01x");
        }
      },
    );
    assert.equal(status, 1, "ls finds no socket");
    assert.match(stdout, /33 101\r+\n.*40 90\r+\n.*read <abc>.*status 103\r\n/s);
  });

  it("balloon: what the guest gives up is the host's again, and comes back; free pages are reported", async () => {
    const { vmlinux, initramfs, library, programs } = guest.files;
    const { stdout, stderr } = await guest.shell(
      `node ${programs}/balloon-host.mjs ${library} ${vmlinux} ${initramfs}`,
    );
    interface Step {
      readonly filled: number;
      readonly counters: Record<string, number>;
    }
    const result = JSON.parse(stdout === "" ? stderr : stdout) as {
      inflating: Step & { inflated: number; deflated: number; filledAgain: number; tellsTotal: boolean };
      reporting: Step & { settled: number };
    };
    const { inflating, reporting } = result;
    // MiB: the guest has touched 32, and gives up 64 of its 96, of which its kernel has some 20.
    assert.ok(inflating.inflated > 0 && inflating.filled - inflating.inflated >= 16, stdout);
    assert.ok(inflating.filledAgain - inflating.inflated >= 16, stdout);
    assert.ok(inflating.deflated > 0 && inflating.tellsTotal, stdout);
    assert.ok((inflating.counters["inflatedPages"] ?? 0) >= 64 * 256);
    assert.ok(reporting.filled - reporting.settled >= 16, stdout);
    assert.ok((reporting.counters["reportedBytes"] ?? 0) >= 20 * 2 ** 20);
    assert.deepEqual([inflating.counters["hostErrors"], reporting.counters["hostErrors"]], [0, 0]);
  });

  it("all devices at once: found in their order, idle at almost no cost; vmlet stats shows them", async function () {
    const problem = guest.isLab ? undefined : tapProblem();
    if (problem !== undefined) skip(this, problem);
    const script = `cat /sys/bus/virtio/devices/virtio*/device | tr '\\n' ' '; echo; sleep 8`;
    const { stdout } = await guest.shell(`rm -f ${SOCKET} /tmp/disk; truncate -s 1M /tmp/disk
      ${boot} --disk path=/tmp/disk --net tap=auto --vsock cid=3,path=${SOCKET} --console virtio --rng \\
        --balloon 16,deflate-on-oom,reporting --metrics /tmp/metrics -- sh -c "${script}" </dev/null
      $VMLET stats /tmp/metrics >/tmp/table; echo "status $?"; cat /tmp/metrics; cat /tmp/table`);
    const [ids, status, ...rest] = stdout.split("\n");
    assert.deepEqual([ids, status], ["0x0002 0x0001 0x0013 0x0003 0x0004 0x0005 ", "status 0"], stdout);
    const lines = rest.filter((line) => line.startsWith("{")).map((line) => JSON.parse(line) as MetricsLine);
    const names = Object.keys(lines.at(-1)?.devices ?? {});
    assert.deepEqual(names, ["vda", "net0", "vsock0", "console0", "rng0", "balloon0"]);
    assert.equal(lines.at(-1)?.balloon?.actual_bytes, 16 * 2 ** 20);
    assert.equal(lines.at(-1)?.state, "ended");
    const idle = lines.slice(-5, -1);
    const [from, to] = [idle[0], idle.at(-1)];
    assert.ok(from !== undefined && to !== undefined);
    const share = (to.cpu_ms - from.cpu_ms) / (to.time_ms - from.time_ms);
    // The lab's processors are interpreted: there, the same work takes many times as long.
    assert.ok(share < (guest.isLab ? 0.2 : 0.01), `${String(share * 100)} % of a core`);
    assert.match(rest.join("\n"), /^balloon +16\.0 MiB {2}given up, of 16\.0 MiB asked for$/m);
  });
});
