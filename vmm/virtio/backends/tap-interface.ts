// TAP interfaces of the host: made for one guest and gone with it, or one that somebody has set up.
// Linux: Documentation/networking/tuntap.rst, linux/if_tun.h, netdevice(7). No `ip` is needed.
import { closeSync, constants, openSync } from "node:fs";
import { isIPv4 } from "node:net";
import { HostError, SystemCallError } from "../../errors.js";
import { shellWord } from "../../host/shell-word.js";
import { IOW } from "../../sys/ioctl.js";
import { ioctl, ioctlStruct } from "../../sys/ioctl-calls.js";
import { interfaceSocket } from "../../sys/sockets.js";
import { closeDescriptor } from "../../sys/descriptors.js";

const TUN_DEVICE = "/dev/net/tun";

// linux/if_tun.h. TUNSETIFF takes a struct ifreq whatever its number says.
const TUNSETIFF = IOW(0x54, 202, 4);
const TUNSETPERSIST = IOW(0x54, 203, 4);
const TUNSETVNETHDRSZ = IOW(0x54, 216, 4);
const IFF_TAP = 0x0002;
const IFF_NO_PI = 0x1000;
const IFF_VNET_HDR = 0x4000;

// linux/sockios.h.
const SIOCGIFFLAGS = 0x8913;
const SIOCSIFFLAGS = 0x8914;
const SIOCSIFADDR = 0x8916;
const SIOCSIFNETMASK = 0x891c;
const SIOCSIFMTU = 0x8922;
const SIOCGIFINDEX = 0x8933;
const IFF_UP = 0x1;

// struct ifreq: a name, then a union that starts with flags, a number or a socket address.
const IFREQ_SIZE = 40;
const IFREQ_UNION = 16;
const IFNAMSIZ = 16;
const AF_INET = 2;
/** Offset of sin_addr in struct sockaddr_in. */
const SIN_ADDR = 4;

/** `bytes` of struct virtio_net_hdr before every frame (virtio 1.2 §5.1.6). */
const VNET_HDR_SIZE = 12;

/** The host's end of the cable. */
export interface HostAddress {
  /** IPv4, such as "172.16.0.1". */
  readonly address: string;
  /** Bits of the network, 0 to 32. */
  readonly prefixLength: number;
}

export interface TapOptions {
  /** "auto": a new interface, which goes when it is closed. Else the name of one that exists. */
  readonly name: string;
  /** `bytes` of a packet; only for a new interface. */
  readonly mtu?: number | undefined;
  /** Only for a new interface. */
  readonly hostAddress?: HostAddress | undefined;
}

/** An open interface; the caller closes `fd`. */
export interface TapInterface {
  readonly name: string;
  readonly fd: number;
}

const RIGHTS = `run as root, or have root make one for you: ${makeTap("NAME")}`;

/** As a user types it who may become root. Function declarations are there before constants. */
function makeTap(name: string): string {
  const word = shellWord(name);
  return `sudo ip tuntap add dev ${word} mode tap user "$USER" && sudo ip link set ${word} up`;
}

/** Throws HostError for an interface that cannot be used, before there is a guest. */
export function openTap({ name, mtu, hostAddress }: TapOptions): TapInterface {
  const isNew = name === "auto";
  const socket = interfaceSocket();
  let fd: number | undefined;
  try {
    if (!isNew) checkExists(socket, name);
    fd = openTunDevice();
    const taken = attach(fd, isNew ? "vmlet%d" : name, name);
    ioctlStruct(fd, "TUNSETVNETHDRSZ", TUNSETVNETHDRSZ, Int32Array.of(VNET_HDR_SIZE));
    if (isNew && mtu !== undefined) setMtu(socket, taken, mtu);
    if (isNew && hostAddress !== undefined) setAddress(socket, taken, hostAddress);
    setUp(socket, taken);
    return { name: taken, fd };
  } catch (error) {
    if (fd !== undefined) closeSync(fd);
    throw error;
  } finally {
    closeDescriptor(socket);
  }
}

/** Makes an interface that stays until `removeTap`, or its network namespace, ends it; one that is there already is taken. */
export function makePersistentTap(name: string): void {
  const fd = openTunDevice();
  try {
    attach(fd, name, name);
    ioctl(fd, "TUNSETPERSIST", TUNSETPERSIST, 1);
  } finally {
    closeSync(fd);
  }
}

/** Of an interface that is there, and may be in use. */
export function configureTap({ name, mtu, hostAddress }: TapOptions): void {
  const socket = interfaceSocket();
  try {
    if (mtu !== undefined) setMtu(socket, name, mtu);
    if (hostAddress !== undefined) setAddress(socket, name, hostAddress);
    setUp(socket, name);
  } finally {
    closeDescriptor(socket);
  }
}

/** Nobody may have it open. */
export function removeTap(name: string): void {
  const fd = openTunDevice();
  try {
    attach(fd, name, name);
    ioctl(fd, "TUNSETPERSIST", TUNSETPERSIST, 0);
  } finally {
    closeSync(fd);
  }
}

function ifreq(name: string): DataView {
  const bytes = new Uint8Array(IFREQ_SIZE);
  new TextEncoder().encodeInto(name, bytes.subarray(0, IFNAMSIZ - 1));
  return new DataView(bytes.buffer);
}

function nameIn(request: DataView): string {
  const bytes = new Uint8Array(request.buffer, 0, IFNAMSIZ);
  return new TextDecoder().decode(bytes.subarray(0, bytes.indexOf(0)));
}

/** TUNSETIFF would make an interface for a misspelt name. */
function checkExists(socket: number, name: string): void {
  if (!/^[^\s/%:]{1,15}$/.test(name) || Buffer.byteLength(name) >= IFNAMSIZ) {
    throw new HostError(`TAP interface "${name}": no interface can have this name`);
  }
  try {
    ioctlStruct(socket, "SIOCGIFINDEX", SIOCGIFINDEX, ifreq(name));
  } catch (error) {
    const cure = `make it: ${makeTap(name)}; or ask for "auto"`;
    throw new HostError(`TAP interface ${name}: no such interface`, { cause: error, cure });
  }
}

function openTunDevice(): number {
  try {
    return openSync(TUN_DEVICE, constants.O_RDWR | constants.O_NONBLOCK);
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? "";
    const cure = code === "EACCES" || code === "EPERM" ? RIGHTS : "load the kernel's module: modprobe tun";
    throw new HostError(`${TUN_DEVICE} cannot be opened (${code})`, { cause: error, cure });
  }
}

/** What errno of TUNSETIFF says about the interface. */
const ATTACH_PROBLEMS: Readonly<Record<string, readonly [problem: string, cure?: string]>> = {
  EPERM: ["may not be used", RIGHTS],
  EBUSY: ["in use by another program", "give every guest an interface of its own"],
  EINVAL: ["not a TAP interface with one queue", `make one: ${makeTap("NAME")}`],
};

/** Returns the name that the kernel has given to the interface. */
function attach(fd: number, wanted: string, shown: string): string {
  const request = ifreq(wanted);
  request.setUint16(IFREQ_UNION, IFF_TAP | IFF_NO_PI | IFF_VNET_HDR, true);
  try {
    ioctlStruct(fd, "TUNSETIFF", TUNSETIFF, request);
  } catch (error) {
    const code = error instanceof SystemCallError ? error.errnoName : "";
    const [problem, cure] = ATTACH_PROBLEMS[code] ?? [`cannot be used (${code})`];
    throw new HostError(`TAP interface ${shown}: ${problem}`, { cause: error, cure });
  }
  return nameIn(request);
}

function configure(socket: number, what: string, request: number, argument: DataView): void {
  try {
    ioctlStruct(socket, what, request, argument);
  } catch (error) {
    throw new HostError(`TAP interface ${nameIn(argument)}: ${what} failed`, { cause: error });
  }
}

function setMtu(socket: number, name: string, mtu: number): void {
  const request = ifreq(name);
  request.setInt32(IFREQ_UNION, mtu, true);
  configure(socket, "SIOCSIFMTU", SIOCSIFMTU, request);
}

/** 0 to 32 ones, then zeroes. Exported for tests. */
export function netmask(prefixLength: number): number {
  return 2 ** 32 - 2 ** (32 - prefixLength);
}

function setAddress(socket: number, name: string, { address, prefixLength }: HostAddress): void {
  if (!isIPv4(address) || !(prefixLength >= 0 && prefixLength <= 32)) {
    throw new HostError(`TAP interface ${name}: ${address}/${String(prefixLength)} is no IPv4 address with a prefix`);
  }
  const request = ifreq(name);
  request.setUint16(IFREQ_UNION, AF_INET, true);
  address.split(".").forEach((part, index) => request.setUint8(IFREQ_UNION + SIN_ADDR + index, Number(part)));
  configure(socket, "SIOCSIFADDR", SIOCSIFADDR, request);
  // In network order, highest byte first.
  request.setUint32(IFREQ_UNION + SIN_ADDR, netmask(prefixLength));
  configure(socket, "SIOCSIFNETMASK", SIOCSIFNETMASK, request);
}

function setUp(socket: number, name: string): void {
  const request = ifreq(name);
  configure(socket, "SIOCGIFFLAGS", SIOCGIFFLAGS, request);
  const flags = request.getUint16(IFREQ_UNION, true);
  if ((flags & IFF_UP) !== 0) return;
  request.setUint16(IFREQ_UNION, flags | IFF_UP, true);
  try {
    ioctlStruct(socket, "SIOCSIFFLAGS", SIOCSIFFLAGS, request);
  } catch (error) {
    const cure = `have root do it: sudo ip link set ${shellWord(name)} up`;
    throw new HostError(`TAP interface ${name}: it is down, and may not be set up`, { cause: error, cure });
  }
}
