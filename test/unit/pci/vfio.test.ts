// Needs: nothing. Devices of the host: their addresses, what /sys says of them, what of their memory a guest may have, and where.
import assert from "node:assert/strict";
import { resolveConfig } from "../../../vmm/config/resolve.js";
import { describeConfig, resolveDescribed } from "../../../vmm/config/describe.js";
import { pciAddress } from "../../../vmm/config/vfio.js";
import { BarAddresses } from "../../../vmm/pci/vfio/bar-addresses.js";
import { BarSlots, SlotNumbers } from "../../../vmm/pci/vfio/bar-slots.js";
import { assignableGroup, deviceNode, hostDevices } from "../../../vmm/pci/vfio/host-devices.js";
import { readRegionInfo, without } from "../../../vmm/pci/vfio/regions.js";
import type { MemoryRegion } from "../../../vmm/memory/guest-memory.js";

const GIB = 2 ** 30;

describe("vfio: addresses", () => {
  it("of a device, with and without its domain, and as its folder", () => {
    assert.equal(pciAddress("0000:01:00.1"), "0000:01:00.1");
    assert.equal(pciAddress("3B:1f.7"), "0000:3b:1f.7");
    assert.equal(pciAddress("/sys/bus/pci/devices/0001:02:03.4/"), "0001:02:03.4");
    assert.equal(pciAddress("/sys/devices/pci0000:00/0000:00:02.0/0000:01:00.1"), "0000:01:00.1");
    for (const text of ["", "nvme0", "01:00", "01:00.8", "01:20.0", "0000:01:00.1 ", "/sys/bus/pci", "/etc/01:00.1"]) {
      assert.equal(pciAddress(text), undefined, text);
    }
  });

  it("a configuration with a device has a PCI bus; one that is wrong, twice there, or beside a balloon is refused", () => {
    const { pci, vfio } = resolveConfig({ kernel: "k", vfio: [{ device: "01:00.1" }] });
    assert.deepEqual({ pci, vfio }, { pci: true, vfio: ["0000:01:00.1"] });
    const refused = (more: object, message: RegExp): void => {
      assert.throws(() => resolveConfig({ kernel: "k", vfio: [{ device: "01:00.1" }], ...more }), message);
    };
    for (const device of [1, null, "", {}, ["01:00.1"], "01:00.1\0"])
      refused({ vfio: [{ device }] }, /^ConfigError: Assigned device 1: /);
    refused({ vfio: [{}] }, /no device is given/);
    refused({ vfio: new Array<unknown>(9).fill({ device: "01:00.1" }) }, /vfio has 9 items; the limit is 8/);
    refused({ vfio: [{ device: "eth0" }] }, /^ConfigError: Assigned device 1: device "eth0" is neither the address/);
    refused({ vfio: [{ device: "01:00.1" }, { device: "0000:01:00.1" }] }, /0000:01:00\.1 is given more than once/);
    refused({ balloon: { targetMib: 0 } }, /A balloon is of no use beside an assigned device/);
  });

  it("a saved configuration gives no device away", () => {
    const described = describeConfig(resolveConfig({ kernel: "k", vfio: [{ device: "01:00.1" }] }));
    assert.throws(() => resolveDescribed(described), /A saved guest has no assigned devices/);
  });
});

describe("vfio: the host's devices", () => {
  const files = new Map<string, string>();
  const sys = {
    read: (path: string) => files.get(path),
    list: (path: string) => [
      ...new Set(
        [...files.keys()].flatMap((file) =>
          file.startsWith(`${path}/`)
            ? file
                .slice(path.length + 1)
                .split("/")
                .slice(0, 1)
            : [],
        ),
      ),
    ],
  };

  beforeEach(() => {
    files.clear();
  });

  function make(address: string, group?: string, driver?: string, classCode = "0x010802"): void {
    const folder = `/sys/bus/pci/devices/${address}`;
    files.set(`${folder}/class`, classCode);
    files.set(`${folder}/uevent`, `${driver === undefined ? "" : `DRIVER=${driver}\n`}PCI_CLASS=10802`);
    if (group !== undefined) files.set(`/sys/kernel/iommu_groups/${group}/devices/${address}/class`, classCode);
  }

  function refused(address: string, message: RegExp, cure?: RegExp): void {
    assert.throws(
      () => assignableGroup(address, sys),
      (error: Error & { cure?: string }) => {
        assert.match(error.message, message);
        if (cure !== undefined) assert.match(error.cure ?? "", cure);
        return true;
      },
    );
  }

  it("one that is free has its group's number", () => {
    make("0000:00:1c.0", "7", "pcieport", "0x060400");
    make("0000:01:00.0", "7");
    make("0000:01:00.1", "7", "vfio-pci");
    assert.equal(assignableGroup("0000:01:00.1", sys), "7");
    assert.deepEqual(
      hostDevices(sys).map(({ address }) => address),
      ["0000:01:00.0", "0000:01:00.1"],
    );
  });

  it("its own node, by which iommufd takes it, where the host's kernel makes one", () => {
    make("0000:01:00.0", "7", "vfio-pci");
    assert.equal(deviceNode("0000:01:00.0", sys), undefined);
    files.set("/sys/bus/pci/devices/0000:01:00.0/vfio-dev/vfio3/dev", "511:3");
    assert.equal(deviceNode("0000:01:00.0", sys), "/dev/vfio/devices/vfio3");
  });

  it("one error each: not there, a bridge, no group, another driver, none, a companion's driver", () => {
    make("0000:00:1c.0", "1", "pcieport", "0x060400");
    make("0000:01:00.0");
    make("0000:02:00.0", "2", "nvme");
    make("0000:03:00.0", "3");
    make("0000:04:00.0", "4", "vfio-pci");
    make("0000:04:00.1", "4", "e1000e", "0x020000");
    refused("0000:09:00.0", /^Assigned device 0000:09:00\.0: this host has no such PCI device$/);
    refused("0000:00:1c.0", /is a bridge/);
    refused("0000:01:00.0", /is in no IOMMU group/, /doctor --passthrough/);
    refused(
      "0000:02:00.0",
      /the driver nvme has 0000:02:00\.0; vfio-pci must have it/,
      /^modprobe vfio-pci && echo vfio-pci > \S+0000:02:00\.0\/driver_override && echo 0000:02:00\.0 > \S+\/driver\/unbind && echo/,
    );
    refused("0000:03:00.0", /no driver has 0000:03:00\.0/, /^((?!unbind).)*$/);
    refused(
      "0000:04:00.0",
      /is in IOMMU group 4 with 0000:04:00\.1, which the driver e1000e has/,
      /devices\/0000:04:00\.1\/driver_override/,
    );
  });
});

/** struct vfio_region_info, with a capability of sparse areas behind another one. */
function regionInfo(size: number, flags: number, areas?: readonly (readonly [number, number])[]): DataView {
  const view = new DataView(new ArrayBuffer(32 + 8 + 16 + 16 * (areas?.length ?? 0)));
  view.setUint32(0, view.byteLength, true);
  view.setUint32(4, flags, true);
  view.setBigUint64(16, BigInt(size), true);
  view.setBigUint64(24, 1n << 40n, true);
  if (areas === undefined) return view;
  view.setUint32(12, 32, true);
  view.setUint16(32, 3, true);
  view.setUint32(36, 40, true);
  view.setUint16(40, 1, true);
  view.setUint32(48, areas.length, true);
  areas.forEach(([offset, length], index) => {
    view.setBigUint64(56 + 16 * index, BigInt(offset), true);
    view.setBigUint64(64 + 16 * index, BigInt(length), true);
  });
  return view;
}

describe("vfio: regions", () => {
  it("all of a region that can be mapped, parts of one that says which, nothing of others", () => {
    assert.deepEqual(readRegionInfo(regionInfo(0x4000, 7)), {
      size: 0x4000,
      position: 2 ** 40,
      mappable: [{ offset: 0, length: 0x4000 }],
    });
    assert.deepEqual(readRegionInfo(regionInfo(0x4000, 3)).mappable, []);
    const sparse = regionInfo(0x4000, 15, [
      [0, 0x1000],
      [0x1800, 0x1800],
      [0x3000, 0x10_0000],
      [0x2000, 0x800],
    ]);
    assert.deepEqual(readRegionInfo(sparse).mappable, [
      { offset: 0, length: 0x1000 },
      { offset: 0x2000, length: 0x1000 },
    ]);
  });

  it("a capability that is only a header, of the MSI-X table's page, says nothing of areas", () => {
    const only = new DataView(regionInfo(0x4000, 15).buffer.slice(0, 40));
    only.setUint32(12, 32, true);
    only.setUint16(32, 3, true);
    assert.deepEqual(readRegionInfo(only).mappable, [{ offset: 0, length: 0x4000 }]);
  });

  it("a list that ends nowhere, or lies outside, ends", () => {
    const circle = regionInfo(0x4000, 15, [[0, 0x1000]]);
    circle.setUint32(36, 32, true);
    assert.deepEqual(readRegionInfo(circle).mappable, [{ offset: 0, length: 0x4000 }]);
    const outside = regionInfo(0x4000, 15, [[0, 0x1000]]);
    outside.setUint32(12, 0x1000, true);
    assert.deepEqual(readRegionInfo(outside).mappable, []);
  });

  it("pages with something of the monitor's in them are taken out", () => {
    const all = [{ offset: 0, length: 0x8000 }];
    assert.deepEqual(without(all, []), all);
    assert.deepEqual(without(all, [{ offset: 0x2ff8, length: 0x10 }]), [
      { offset: 0, length: 0x2000 },
      { offset: 0x4000, length: 0x4000 },
    ]);
    assert.deepEqual(
      without(all, [
        { offset: 0, length: 1 },
        { offset: 0x7fff, length: 1 },
      ]),
      [{ offset: 0x1000, length: 0x6000 }],
    );
    assert.deepEqual(without(all, [{ offset: 0x10, length: 0x7ff0 }]), []);
  });
});

describe("vfio: places", () => {
  const low = { gpa: 0xc800_0000, length: 384 * 2 ** 20 };
  const high = { gpa: 8 * GIB, length: 32 * GIB };
  const bar = (length: number, is64Bit: boolean) => ({ index: 0, length, is64Bit, isPrefetchable: false });

  it("each range lies where its length allows, behind what is taken; large ones above RAM, what fits nowhere at 0", () => {
    const addresses = new BarAddresses(low, high, 0x1_8000);
    const placed = addresses.place([
      bar(0x4000, true),
      bar(0x2_0000, false),
      bar(256 * 2 ** 20, true),
      bar(256 * 2 ** 20, false),
      bar(64 * GIB, true),
    ]);
    assert.deepEqual(placed, [0xc801_8000, 0xc802_0000, 8 * GIB, 0xd000_0000, 0]);
    assert.deepEqual(addresses.place([bar(0x1000, false)]), [0]);
    assert.deepEqual(addresses.place([bar(0x1000, true)]), [8 * GIB + 256 * 2 ** 20]);
  });

  it("slots follow the range: away before they come anew, each with its own number", () => {
    const calls: string[] = [];
    const vm = {
      setMemoryRegion: (slot: number, { gpa, size, hva }: MemoryRegion) => {
        calls.push(`${String(slot)} ${gpa.toString(16)} ${size.toString(16)} ${hva.toString(16)}`);
      },
    };
    const spans = new Map([
      [
        0,
        [
          { offset: 0, length: 0x1000, hva: 0x10_0000 },
          { offset: 0x2000, length: 0x2000, hva: 0x20_0000 },
        ],
      ],
    ]);
    const slots = new BarSlots(vm, spans, new SlotNumbers(4));
    slots.placed(0, 0xc800_0000);
    slots.placed(0, 0xc900_0000);
    slots.placed(0, undefined);
    slots.placed(0, undefined);
    slots.placed(1, 0xc800_0000);
    assert.deepEqual(calls, [
      "4 c8000000 1000 100000",
      "5 c8002000 2000 200000",
      "4 c8000000 0 100000",
      "5 c8002000 0 200000",
      "4 c9000000 1000 100000",
      "5 c9002000 2000 200000",
      "4 c9000000 0 100000",
      "5 c9002000 0 200000",
    ]);
  });
});
