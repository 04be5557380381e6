// What each of the host kernel's vhost devices has, whatever it serves: a kernel thread that reads the rings in guest memory. The
// guest's notifications reach it, and its interrupts the guest, through descriptors that KVM has, too. linux/vhost.h.
import { closeSync, constants, openSync } from "node:fs";
import { basename } from "node:path";
import type { ServedQueue } from "../../../devices/virtio/queue.js";
import { HostError, SystemCallError } from "../../errors.js";
import type { MappedGuestMemory } from "../../memory/guest-memory.js";
import { ioctl, ioctlStruct } from "../../sys/ioctl-calls.js";
import {
  SIZEOF_VHOST_MEMORY,
  SIZEOF_VHOST_MEMORY_REGION,
  SIZEOF_VHOST_VRING_ADDR,
  VHOST_GET_FEATURES,
  VHOST_SET_FEATURES,
  VHOST_SET_MEM_TABLE,
  VHOST_SET_OWNER,
  VHOST_SET_VRING_ADDR,
  VHOST_SET_VRING_BASE,
  VHOST_SET_VRING_CALL,
  VHOST_SET_VRING_KICK,
  VHOST_SET_VRING_NUM,
  vhost_memory,
  vhost_memory_region,
  vhost_vring_addr,
} from "../../sys/vhost-abi.js";
import { DirectQueues, type DirectServices } from "./direct-queues.js";

/**
 * The vhost device at `path`, owned by this process; `without`: what to say or to give in its place. Throws HostError where the
 * host has none, or it is not for this user.
 */
export function openVhost(path: string, without: string): number {
  try {
    const fd = openSync(path, constants.O_RDWR);
    try {
      ioctl(fd, "VHOST_SET_OWNER", VHOST_SET_OWNER);
    } catch (error) {
      closeSync(fd);
      throw error;
    }
    return fd;
  } catch (error) {
    const code = error instanceof SystemCallError ? error.errnoName : ((error as NodeJS.ErrnoException).code ?? "");
    const cure =
      code === "EACCES" || code === "EPERM"
        ? `let your user open it, or ${without}`
        : `load the kernel's module: modprobe ${basename(path).replace("-", "_")}; or ${without}`;
    throw new HostError(`${path} cannot be used (${code})`, { cause: error, cure });
  }
}

export interface VhostServices extends DirectServices {
  readonly memory: Pick<MappedGuestMemory, "regions" | "hostAddressOf">;
}

export interface VhostRingsOptions extends VhostServices {
  /** Of `openVhost`, and closed with it. */
  readonly fd: number;
  /** Queues that the kernel may have, from the device's first on. */
  readonly queues: number;
  /** Features of the back end that nobody here can use. */
  readonly notWanted: bigint;
}

export class VhostRings {
  /** How the guest and the kernel's thread wake each other. */
  readonly direct: DirectQueues;
  /** By queue: the kernel's thread has it. Whoever gives it one, or takes one back, says so here. */
  readonly serves: boolean[];
  readonly #fd: number;
  readonly #memory: VhostServices["memory"];
  /** What it knows of. */
  readonly features: bigint;

  /** Throws SystemCallError. */
  constructor({ fd, queues, notWanted, memory, events, guard }: VhostRingsOptions) {
    this.#fd = fd;
    this.#memory = memory;
    this.serves = new Array<boolean>(queues).fill(false);
    const features = new BigUint64Array(1);
    ioctlStruct(fd, "VHOST_GET_FEATURES", VHOST_GET_FEATURES, features);
    this.features = (features[0] ?? 0n) & ~notWanted;
    ioctlStruct(fd, "VHOST_SET_MEM_TABLE", VHOST_SET_MEM_TABLE, memoryTable(memory.regions));
    this.direct = new DirectQueues(queues, { events, guard });
  }

  /** Tells the kernel of the features that were negotiated, and of those queues that there are. Throws SystemCallError. */
  setUp(features: bigint, queues: readonly (ServedQueue | undefined)[]): void {
    this.direct.wire();
    const known = BigUint64Array.of(features & this.features);
    ioctlStruct(this.#fd, "VHOST_SET_FEATURES", VHOST_SET_FEATURES, known);
    queues.forEach((queue, index) => {
      if (queue !== undefined) this.#setUpQueue(index, queue);
    });
  }

  /** Used buffers are told to `used` from now on, or to the driver itself again. Nothing of before is still on its way. */
  relay(used: ((queueIndex: number) => void) | undefined): void {
    if (!this.direct.calls.relay(used)) return;
    // Returns when what was being signalled is.
    this.serves.forEach((isServed, index) => {
      if (isServed) this.#setCall(index);
    });
  }

  /** There may be chains in the queue. */
  kick(queueIndex: number): void {
    this.direct.kick(queueIndex);
  }

  close(): void {
    // First: the kernel's thread signals those descriptors.
    closeSync(this.#fd);
    this.direct.close();
  }

  /** The transport has checked that the queue lies in RAM. */
  #setUpQueue(index: number, { size, nextAvailable, descriptorGpa, availableGpa, usedGpa }: ServedQueue): void {
    const fd = this.#fd;
    ioctlStruct(fd, "VHOST_SET_VRING_NUM", VHOST_SET_VRING_NUM, Uint32Array.of(index, size));
    ioctlStruct(fd, "VHOST_SET_VRING_BASE", VHOST_SET_VRING_BASE, Uint32Array.of(index, nextAvailable));
    const address = new DataView(new ArrayBuffer(SIZEOF_VHOST_VRING_ADDR));
    address.setUint32(vhost_vring_addr.index, index, true);
    // Throws for what is not RAM; the lengths have been checked with the ring's size.
    const setAddress = (offset: number, gpa: number): void => {
      address.setBigUint64(offset, BigInt(this.#memory.hostAddressOf(gpa, 1)), true);
    };
    setAddress(vhost_vring_addr.desc_user_addr, descriptorGpa);
    setAddress(vhost_vring_addr.used_user_addr, usedGpa);
    setAddress(vhost_vring_addr.avail_user_addr, availableGpa);
    ioctlStruct(fd, "VHOST_SET_VRING_ADDR", VHOST_SET_VRING_ADDR, address);
    this.#setCall(index);
    const kick = Int32Array.of(index, this.direct.kickFd(index));
    ioctlStruct(fd, "VHOST_SET_VRING_KICK", VHOST_SET_VRING_KICK, kick);
  }

  #setCall(index: number): void {
    ioctlStruct(
      this.#fd,
      "VHOST_SET_VRING_CALL",
      VHOST_SET_VRING_CALL,
      Int32Array.of(index, this.direct.calls.fd(index)),
    );
  }
}

/** Guest RAM as struct vhost_memory. */
function memoryTable(regions: MappedGuestMemory["regions"]): DataView {
  const table = new DataView(new ArrayBuffer(SIZEOF_VHOST_MEMORY + regions.length * SIZEOF_VHOST_MEMORY_REGION));
  table.setUint32(vhost_memory.nregions, regions.length, true);
  regions.forEach(({ gpa, size, hva }, index) => {
    const at = SIZEOF_VHOST_MEMORY + index * SIZEOF_VHOST_MEMORY_REGION;
    table.setBigUint64(at + vhost_memory_region.guest_phys_addr, BigInt(gpa), true);
    table.setBigUint64(at + vhost_memory_region.memory_size, BigInt(size), true);
    table.setBigUint64(at + vhost_memory_region.userspace_addr, BigInt(hva), true);
  });
  return table;
}
