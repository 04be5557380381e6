// Needs: the lab, with an IOMMU and two network cards on one wire. A guest has whole cards, which interrupt by lines and by
// MSI-X; one that the host takes back, and one that the user has no right to.
import assert from "node:assert/strict";
import { assignableLab } from "../helpers/assignable-lab.js";

const LIMIT_MS = 900_000;
const CARDS = ["0000:02:00.0", "0000:03:00.0"] as const;
const CLASS_FOLDER = "/sys/bus/pci/devices";
/** What goes over the wire each way, `MiB`. */
const DATA_MIB = 2;
const NOBODY = 65_534;
/** No throttling: the emulated card's timer for it ends QEMU 7.2 if a driver uses messages by the time that it is due. */
const UNTHROTTLED = "e1000e.InterruptThrottleRate=0,0";

/** Both cards of a guest, the second in a network of its own: what the first sends comes to the second, and back. */
const TRAFFIC = `
  mount -t sysfs sysfs /sys 2>/dev/null
  unshare -n sleep 1000 & other=$!; sleep 1; ip link set eth1 netns $other
  inside() { nsenter -t $other -n "$@"; }
  ip addr add 10.9.0.1/24 dev eth0; ip link set eth0 up; inside ip addr add 10.9.0.2/24 dev eth1; inside ip link set eth1 up
  n=0; until ping -c 1 -W 1 10.9.0.2 >/dev/null || [ $n = 60 ]; do n=$((n + 1)); done
  dd if=/dev/urandom of=/tmp/sent bs=1M count=${String(DATA_MIB)} 2>/dev/null
  httpd -h /tmp; inside httpd -h /tmp
  inside wget -q -O /tmp/there http://10.9.0.1/sent; wget -q -O /tmp/back http://10.9.0.2/there
  cmp /tmp/sent /tmp/back && echo same
  grep -o -E '(IO-APIC|PCI-MSI).*' /proc/interrupts | grep eth | tr -s ' ' | sed -E 's/ [0-9]+-(edge|fasteoi)/ \\1/'
  kill $other`;

describe("vfio: network cards", function () {
  this.timeout(LIMIT_MS);
  const { shell } = assignableLab();
  before(async () => {
    for (const card of CARDS) {
      await shell(`echo vfio-pci >${CLASS_FOLDER}/${card}/driver_override; echo ${card} >/sys/bus/pci/drivers_probe`);
    }
  });

  const cards = (names: readonly string[], words = ""): string =>
    `${names.map((card) => `--vfio ${card}`).join(" ")} --cmdline '${UNTHROTTLED}${words}'`;
  const inGuest = (script: string): string => `sh -c '${script.replaceAll("'", "'\\''")}'`;

  // By MSI the emulated card does not interrupt, whoever drives it: stock-kernels.test.ts has another device for that.
  it("by their lines: what one sends comes to the other, both ways", async () => {
    const stdout = await shell(
      `$OWN ${cards(CARDS, " e1000e.IntMode=0,0")} -- ${inGuest(TRAFFIC)} </dev/null 2>&1; echo "status $?"`,
    );
    assert.deepEqual(
      stdout.trimEnd().split("\n"),
      ["same", "IO-APIC fasteoi eth0", "IO-APIC fasteoi eth1", "status 0"],
      stdout,
    );
  });

  it("by MSI-X, an interrupt for each direction", async () => {
    const stdout = await shell(`$OWN ${cards(CARDS)} -- ${inGuest(TRAFFIC)} </dev/null 2>&1; echo "status $?"`);
    const [same, ...rest] = stdout.trimEnd().split("\n");
    assert.equal(same, "same", stdout);
    for (const card of ["eth0", "eth1"]) {
      for (const what of ["-rx-0", "-tx-0", ""]) assert.ok(rest.includes(`PCI-MSI edge ${card}${what}`), stdout);
    }
    assert.equal(rest.at(-1), "status 0");
  });

  it("a card that the host takes back ends its guest with one line, and is the host's again; the other stays", async () => {
    const [card] = CARDS;
    const stdout = await shell(`cd /tmp
      $OWN ${cards([card])} -- sh -c 'ip link set eth0 up; echo ready; sleep 1000' </dev/null >out 2>err & guest=$!
      n=0; until grep -q ready out || [ $n = 300 ]; do sleep 0.2; n=$((n + 1)); done
      echo 1 >${CLASS_FOLDER}/${card}/remove; wait $guest; echo "status $?"
      grep -v '^ *at ' err; ls -d ${CLASS_FOLDER}/${card} 2>&1 | grep -c 'No such'
      echo 1 >/sys/bus/pci/rescan; ls -d ${CLASS_FOLDER}/${card}
      echo vfio-pci >${CLASS_FOLDER}/${card}/driver_override; echo ${card} >/sys/bus/pci/drivers_probe
      $OWN ${cards(CARDS)} -- sh -c 'ls /sys/class/net | tr "\\n" " "' </dev/null 2>&1`);
    assert.deepEqual(
      stdout
        .trimEnd()
        .split("\n")
        .map((line) => line.trimEnd()),
      [
        "status 69",
        `vmlet: Assigned device ${card}: this host takes it back, and the guest cannot go on without it`,
        "vmlet: what helps: end guests before their devices are removed or unbound",
        "1",
        `${CLASS_FOLDER}/${card}`,
        "eth0 eth1 lo",
      ],
      stdout,
    );
  });

  it("a user without the right to its group, or to lock the guest's memory, hears it in one line, with what helps", async () => {
    const [card] = CARDS;
    const asNobody = `node -e 'require("child_process").spawnSync("sh", ["-c", process.argv[1]], { uid: ${String(NOBODY)}, gid: ${String(NOBODY)}, stdio: "inherit" })'`;
    const stdout = await shell(`chmod 666 /dev/kvm /dev/vfio/vfio; export HOME=/tmp/nobody; mkdir -m 777 $HOME
      group=/dev/vfio/$(basename $(readlink ${CLASS_FOLDER}/${card}/iommu_group)); chmod 600 $group; ulimit -l unlimited
      ${asNobody} "$OWN --vfio ${card} -- true </dev/null 2>&1 | grep -v '^ *at '"
      chown ${String(NOBODY)} $group
      ${asNobody} "ulimit -l 65536; $OWN --vfio ${card} -- true </dev/null 2>&1 | grep -v '^ *at '"
      ${asNobody} "$OWN --vfio ${card} -- echo fine </dev/null 2>&1"`);
    assert.deepEqual(
      stdout
        .trimEnd()
        .split("\n")
        .map((line) => line.replace(/vfio\/\d+/g, "vfio/N").trimEnd()),
      [
        "vmlet: /dev/vfio/N cannot be opened (EACCES)",
        "vmlet: what helps: run as root, or give yourself the file: sudo chown $USER /dev/vfio/N",
        "vmlet: 128 MiB of the guest's memory cannot be pinned for its assigned devices (ENOMEM)",
        "vmlet: what helps: give the guest less memory, or let this process lock all of it: ulimit -l unlimited",
        "fine",
      ],
    );
  });
});
