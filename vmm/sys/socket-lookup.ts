// One socket for all TCP ports of a network namespace's loopback: a program of the kernel's that answers its search for who listens.
// bpf(2); Linux: bpf/prog_sk_lookup.rst, from 5.9 on.
import { openSync, closeSync } from "node:fs";
import { closeDescriptor } from "./descriptors.js";
import { systemCallError } from "./errno.js";
import { lazy } from "./koffi.js";
import { mmapAnonymous, munmap, viewMemory } from "./memory.js";

const nativeBpf = lazy("syscall", "int64_t", ["int64_t", "int64_t", "void *", "size_t"]);
const SYS_BPF = 321;
const BPF_MAP_CREATE = 0;
const BPF_MAP_UPDATE_ELEM = 2;
const BPF_PROG_LOAD = 5;
const BPF_LINK_CREATE = 28;
const BPF_MAP_TYPE_SOCKMAP = 15;
const BPF_PROG_TYPE_SK_LOOKUP = 30;
const BPF_SK_LOOKUP = 36;
/** union bpf_attr, as far as these commands use it. */
const ATTRIBUTE_BYTES = 72;
const PAGE = 4096;

const IPPROTO_TCP = 6;
/** struct bpf_sk_lookup. */
const PROTOCOL = 12;
const LOCAL_IP4 = 40;
/** In network order, as a word of a little-endian processor: 127.x.x.x. */
const LOOPBACK_NET = 127;

const MAP_LOOKUP_ELEM = 1;
const SK_RELEASE = 86;
const SK_ASSIGN = 124;

/** struct bpf_insn; linux/bpf.h, linux/bpf_common.h. */
function instruction(code: number, to: number, from: number, offset: number, value: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeUInt8(code, 0);
  bytes.writeUInt8((from << 4) | to, 1);
  bytes.writeInt16LE(offset, 2);
  bytes.writeInt32LE(value, 4);
  return bytes;
}

const move = (to: number, from: number): Buffer => instruction(0xbf, to, from, 0, 0);
const set = (to: number, value: number): Buffer => instruction(0xb7, to, 0, 0, value);
const add = (to: number, value: number): Buffer => instruction(0x07, to, 0, 0, value);
const and = (to: number, value: number): Buffer => instruction(0x57, to, 0, 0, value);
const load32 = (to: number, from: number, offset: number): Buffer => instruction(0x61, to, from, offset, 0);
const store32 = (to: number, offset: number, value: number): Buffer => instruction(0x62, to, 0, offset, value);
const call = (helper: number): Buffer => instruction(0x85, 0, 0, 0, helper);
const skipUnless = (register: number, value: number, count: number): Buffer =>
  instruction(0x55, register, 0, count, value);
const skipIf = (register: number, value: number, count: number): Buffer => instruction(0x15, register, 0, count, value);
const exit = instruction(0x95, 0, 0, 0, 0);
/** Two instructions: the map of a descriptor. */
const loadMap = (to: number, fd: number): Buffer =>
  Buffer.concat([instruction(0x18, to, 1, 0, fd), instruction(0, 0, 0, 0, 0)]);

/** A TCP connection to an address of the loopback is for the map's only socket; all else goes its way. */
function program(map: number): Buffer {
  const assign = [
    store32(10, -4, 0),
    loadMap(1, map),
    move(2, 10),
    add(2, -4),
    call(MAP_LOOKUP_ELEM),
    skipIf(0, 0, 7),
    move(7, 0),
    move(1, 6),
    move(2, 7),
    set(3, 0),
    call(SK_ASSIGN),
    move(1, 7),
    call(SK_RELEASE),
  ];
  // A pair for the map counts twice.
  const count = assign.length + 1;
  return Buffer.concat([
    move(6, 1),
    load32(2, 6, PROTOCOL),
    skipUnless(2, IPPROTO_TCP, count + 3),
    load32(2, 6, LOCAL_IP4),
    and(2, 0xff),
    skipUnless(2, LOOPBACK_NET, count),
    ...assign,
    set(0, 1),
    exit,
  ]);
}

/** Texts and tables that the kernel reads during a call lie at an address there. */
class Call {
  readonly #address = mmapAnonymous(PAGE);
  readonly #bytes = Buffer.from(viewMemory(this.#address, PAGE));
  #used = 0;

  place(bytes: Uint8Array): bigint {
    const at = this.#used;
    this.#bytes.set(bytes, at);
    this.#used += (bytes.length + 7) & ~7;
    return BigInt(this.#address + at);
  }

  /** Throws SystemCallError. */
  do(command: number, fields: Readonly<Record<number, number | bigint>>): number {
    const attribute = Buffer.alloc(ATTRIBUTE_BYTES);
    for (const [offset, value] of Object.entries(fields)) {
      if (typeof value === "bigint") attribute.writeBigUInt64LE(value, Number(offset));
      else attribute.writeUInt32LE(value, Number(offset));
    }
    // SAFETY: as many bytes as it is told, read during the call only, as is what they point to, which lies in the page above.
    const result = nativeBpf(SYS_BPF, command, attribute, ATTRIBUTE_BYTES);
    if (result < 0) throw systemCallError("bpf");
    return result;
  }

  close(): void {
    munmap(this.#address, PAGE);
  }
}

/**
 * From now on the listening TCP socket of IPv4 has all connections to 127.0.0.0/8 in the network namespace of this thread, whatever
 * their port, until the result is called or this process ends. Throws SystemCallError where the kernel or its rules refuse.
 */
export function takeLoopback(socket: number): () => void {
  const call = new Call();
  const made: number[] = [];
  const closeAll = (): void => {
    for (const fd of made.splice(0)) closeDescriptor(fd);
  };
  try {
    const map = call.do(BPF_MAP_CREATE, { 0: BPF_MAP_TYPE_SOCKMAP, 4: 4, 8: 4, 12: 1 });
    made.push(map);
    const value = Buffer.alloc(4);
    value.writeUInt32LE(socket);
    call.do(BPF_MAP_UPDATE_ELEM, { 0: map, 8: call.place(Buffer.alloc(4)), 16: call.place(value) });
    const code = program(map);
    const loaded = call.do(BPF_PROG_LOAD, {
      0: BPF_PROG_TYPE_SK_LOOKUP,
      4: code.length / 8,
      8: call.place(code),
      16: call.place(Buffer.from("\0")),
      68: BPF_SK_LOOKUP,
    });
    made.push(loaded);
    const namespace = openSync("/proc/thread-self/ns/net", "r");
    try {
      made.push(call.do(BPF_LINK_CREATE, { 0: loaded, 4: namespace, 8: BPF_SK_LOOKUP }));
    } finally {
      closeSync(namespace);
    }
    return closeAll;
  } catch (error) {
    closeAll();
    throw error;
  } finally {
    call.close();
  }
}
