// Needs: nothing. Whoever serves a queue of a device on the bus sends what the guest has set up for it just then.
import assert from "node:assert/strict";
import {
  PCI_CAP_ID_MSIX,
  PCI_MSIX_FLAGS,
  PCI_MSIX_FLAGS_ENABLE,
  PCI_MSIX_FLAGS_MASKALL,
} from "../../../devices/pci/constants.js";
import type { MsiMessage } from "../../../devices/pci/msix.js";
import { StateReader } from "../../../devices/state.js";
import type { GsiRoute, VmFd } from "../../../vmm/kvm/vm-fd.js";
import { MsiRoutes } from "../../../vmm/pci/msi-routes.js";
import { PciInterrupts } from "../../../vmm/virtio/pci-interrupts.js";
import { EchoDevice } from "../../helpers/echo-device.js";
import { pciMachine } from "../../helpers/pci-machine.js";

const DEVICE = 0;
/** Of the two queues: what stands for their eventfds. */
const [FIRST, SECOND] = [70, 71];

function rig() {
  const device = new EchoDevice();
  const m = pciMachine(device);
  /** By eventfd, what KVM was told that it sends, one after the other; undefined: nothing. */
  const told = new Map<number, (number | undefined)[]>([FIRST, SECOND].map((fd) => [fd, []]));
  let table: readonly GsiRoute[] = [];
  const vm = {
    trySetGsiRouting: (routes: readonly GsiRoute[]) => {
      table = routes;
      return true;
    },
    connectIrqfd: (fd: number, line: number) => {
      const route = table.find(({ gsi }) => gsi === line);
      assert.ok(route !== undefined && "message" in route);
      told.get(fd)?.push(route.message.data);
    },
    disconnectIrqfd: (fd: number) => told.get(fd)?.push(undefined),
  };
  const interrupts = new PciInterrupts(new MsiRoutes(vm as unknown as VmFd));
  const messageOf = (queueIndex: number): MsiMessage | undefined => m.function.queueMessage(queueIndex);
  m.messagesChanged = () => {
    interrupts.messagesChanged(DEVICE, messageOf);
  };
  const connect = (): void => {
    [FIRST, SECOND].forEach((fd, queueIndex) => {
      interrupts.connect(DEVICE, queueIndex, fd, messageOf);
    });
  };
  const msixAt = m.pci.capabilities(PCI_CAP_ID_MSIX)[0] ?? 0;
  return {
    m,
    device,
    told,
    connect,
    setFlags: (flags: number) => m.pci.writeConfig(msixAt + PCI_MSIX_FLAGS, 2, flags),
  };
}

describe("pci: interrupts of queues that are served elsewhere", () => {
  it("a queue's eventfd has its vector's message; a route is told only of what has changed", () => {
    const { m, told, connect } = rig();
    m.pci.enableMsix();
    m.driver.start();
    m.registers.setVectors(2);
    connect();
    assert.deepEqual([told.get(FIRST), told.get(SECOND)], [[0x21], [0x22]]);
    m.pci.writeVector(0, [0xfee0_0000, 0, 0x99, 0]);
    m.registers.setVectors(2);
    assert.deepEqual([told.get(FIRST), told.get(SECOND)], [[0x21], [0x22]]);
  });

  it("what is masked, disabled or reset sends nothing until it is set up again", () => {
    const { m, told, connect, setFlags } = rig();
    m.driver.start();
    connect();
    assert.deepEqual([told.get(FIRST), told.get(SECOND)], [[], []]);
    m.registers.setVectors(2);
    m.pci.enableMsix();
    m.pci.writeVector(1, [1], 3);
    m.pci.writeVector(1, [0x55], 2);
    m.pci.writeVector(1, [0], 3);
    assert.deepEqual([told.get(FIRST), told.get(SECOND)], [[0x21, undefined, 0x55], [0x22]]);
    setFlags(PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL);
    setFlags(PCI_MSIX_FLAGS_ENABLE);
    setFlags(0);
    assert.deepEqual(told.get(SECOND), [0x22, undefined, 0x22, undefined]);
    setFlags(PCI_MSIX_FLAGS_ENABLE);
    m.driver.reset();
    assert.deepEqual(told.get(SECOND), [0x22, undefined, 0x22, undefined, 0x22, undefined]);
    m.driver.start();
    m.registers.setVectors(2);
    assert.equal(told.get(SECOND)?.at(-1), 0x22);
  });

  it("a device that goes on in another process sends what its guest had set up", () => {
    const { m, device } = rig();
    m.pci.enableMsix();
    m.driver.start();
    m.registers.setVectors(2);
    const saved = JSON.parse(JSON.stringify({ fn: m.function.save(), device: device.save() })) as unknown;
    const state = new StateReader(saved, "state");
    const again = rig();
    again.connect();
    again.m.function.restoreWith(state.at("fn"), state.at("device"));
    assert.deepEqual([again.told.get(FIRST), again.told.get(SECOND)], [[0x21], [0x22]]);
  });
});
