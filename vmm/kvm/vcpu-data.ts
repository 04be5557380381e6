// A vCPU's state as data with the UAPI's names, and back from data that may be anybody's. What KVM itself refuses
// (a control register that makes no sense) is found when it is loaded; here, that each number fits its field.
import { base64, hex64, type State, type StateReader } from "../../devices/state.js";
import {
  KVM_MP_STATE_HALTED,
  KVM_MP_STATE_INIT_RECEIVED,
  KVM_MP_STATE_RUNNABLE,
  KVM_MP_STATE_SIPI_RECEIVED,
  KVM_MP_STATE_UNINITIALIZED,
  SIZEOF_KVM_DEBUGREGS,
  SIZEOF_KVM_LAPIC_STATE,
  SIZEOF_KVM_REGS,
  SIZEOF_KVM_SREGS,
  SIZEOF_KVM_VCPU_EVENTS,
  SIZEOF_KVM_XSAVE,
  kvm_debugregs,
  kvm_dtable,
  kvm_regs,
  kvm_segment,
  kvm_sregs,
  kvm_vcpu_events,
} from "../sys/kvm-abi.js";
import type { CpuidEntry } from "../x86/cpuid.js";
import { fieldsOf, readFields, writeFields, type Fields } from "./fields.js";
import type { MsrValue } from "./vcpu-fd.js";
import type { VcpuState } from "./vcpu-state.js";

const MAX_CPUID_ENTRIES = 256;
const MAX_MSRS = 1024;
const MAX_XCRS = 16;
/** `bytes`; AMX needs 11 KiB. */
const MAX_XSAVE_BYTES = 65_536;
const MAX_TSC_KHZ = 100_000_000;
const MAX_U32 = { minimum: 0, maximum: 0xffff_ffff };

const MP_STATES = {
  runnable: KVM_MP_STATE_RUNNABLE,
  uninitialized: KVM_MP_STATE_UNINITIALIZED,
  "init-received": KVM_MP_STATE_INIT_RECEIVED,
  halted: KVM_MP_STATE_HALTED,
  "sipi-received": KVM_MP_STATE_SIPI_RECEIVED,
} as const;
type MpStateName = keyof typeof MP_STATES;
const MP_STATE_NAMES = Object.keys(MP_STATES) as MpStateName[];

const SEGMENTS = ["cs", "ds", "es", "fs", "gs", "ss", "tr", "ldt"] as const;
const TABLES = ["gdt", "idt"] as const;
const CONTROL_REGISTERS = ["cr0", "cr2", "cr3", "cr4", "cr8", "efer", "apic_base"] as const;

const REGS = fieldsOf(kvm_regs, "u64");
const SEGMENT = fieldsOf(kvm_segment, "u8", { base: "u64", limit: "u32", selector: "u16" });
const TABLE = fieldsOf(kvm_dtable, "u16", { base: "u64" });
const CONTROL: Fields = CONTROL_REGISTERS.map((name) => [name, kvm_sregs[name], "u64"]);
const DEBUG: Fields = [
  ...[0, 1, 2, 3].map((i) => [`dr${String(i)}`, kvm_debugregs.db + 8 * i, "u64"] as const),
  ["dr6", kvm_debugregs.dr6, "u64"],
  ["dr7", kvm_debugregs.dr7, "u64"],
];
const EVENTS = fieldsOf(kvm_vcpu_events, "u8", {
  exception_error_code: "u32",
  sipi_vector: "u32",
  flags: "u32",
  exception_payload: "u64",
});
const CPUID_FIELDS = ["function", "index", "flags", "eax", "ebx", "ecx", "edx"] as const;
/** Registers of the local APIC's page lie 16 bytes apart. Intel SDM vol. 3 §11.4.1. */
const APIC_REGISTER_STRIDE = 16;

export function vcpuToData(state: VcpuState): State {
  return {
    tscKhz: state.tscKhz,
    mpState: MP_STATE_NAMES.find((name) => MP_STATES[name] === state.mpState) ?? "runnable",
    regs: readFields(state.regs, REGS),
    sregs: sregsToData(state.sregs),
    debugregs: readFields(state.debugregs, DEBUG),
    events: readFields(state.events, EVENTS),
    lapic: lapicToData(state.lapic),
    xcrs: Object.fromEntries(state.xcrs.map(([number, value]) => [String(number), hex64(value)])),
    msrs: Object.fromEntries(state.msrs.map(([index, value]) => [`0x${index.toString(16)}`, hex64(value)])),
    xsave: base64(new Uint8Array(state.xsave.buffer)),
    cpuid: state.cpuid.map(cpuidToData),
  };
}

/** Throws StateError. */
export function vcpuFromData(data: StateReader): VcpuState {
  data.only(["tscKhz", "mpState", "regs", "sregs", "debugregs", "events", "lapic", "xcrs", "msrs", "xsave", "cpuid"]);
  return {
    tscKhz: data.integer("tscKhz", { minimum: 0, maximum: MAX_TSC_KHZ }),
    mpState: MP_STATES[data.oneOf("mpState", MP_STATE_NAMES)],
    regs: structureOf(SIZEOF_KVM_REGS, REGS, data.at("regs")),
    sregs: sregsFromData(data.at("sregs")),
    debugregs: structureOf(SIZEOF_KVM_DEBUGREGS, DEBUG, data.at("debugregs")),
    events: structureOf(SIZEOF_KVM_VCPU_EVENTS, EVENTS, data.at("events")),
    lapic: lapicFromData(data.at("lapic")),
    xcrs: numbered(data.at("xcrs"), MAX_XCRS, 10),
    msrs: numbered(data.at("msrs"), MAX_MSRS, 16),
    xsave: xsaveFromData(data),
    cpuid: data.list("cpuid", { minimum: 1, maximum: MAX_CPUID_ENTRIES }).map(cpuidFromData),
  };
}

function structureOf(size: number, fields: Fields, data: StateReader): DataView<ArrayBuffer> {
  const structure = new DataView(new ArrayBuffer(size));
  writeFields(structure, fields, data);
  return structure;
}

function sregsToData(sregs: DataView): State {
  return {
    ...Object.fromEntries(SEGMENTS.map((name) => [name, readFields(sregs, SEGMENT, kvm_sregs[name])])),
    ...Object.fromEntries(TABLES.map((name) => [name, readFields(sregs, TABLE, kvm_sregs[name])])),
    ...readFields(sregs, CONTROL),
  };
}

function sregsFromData(data: StateReader): DataView<ArrayBuffer> {
  data.only([...SEGMENTS, ...TABLES, ...CONTROL_REGISTERS]);
  const sregs = new DataView(new ArrayBuffer(SIZEOF_KVM_SREGS));
  for (const name of SEGMENTS) writeFields(sregs, SEGMENT, data.at(name), kvm_sregs[name]);
  for (const name of TABLES) writeFields(sregs, TABLE, data.at(name), kvm_sregs[name]);
  for (const name of CONTROL_REGISTERS) sregs.setBigUint64(kvm_sregs[name], data.hex64(name), true);
  return sregs;
}

/** The registers that are not 0, by their offset in the page. */
function lapicToData(lapic: DataView): State {
  const registers: Record<string, number> = {};
  for (let at = 0; at < lapic.byteLength; at += APIC_REGISTER_STRIDE) {
    const value = lapic.getUint32(at, true);
    if (value !== 0) registers[`0x${at.toString(16)}`] = value;
  }
  return registers;
}

function lapicFromData(data: StateReader): DataView<ArrayBuffer> {
  const lapic = new DataView(new ArrayBuffer(SIZEOF_KVM_LAPIC_STATE));
  for (const name of data.names(SIZEOF_KVM_LAPIC_STATE / APIC_REGISTER_STRIDE)) {
    const at = /^0x[0-9a-f]{1,3}$/.test(name) ? Number(name) : -1;
    if (at < 0 || at >= SIZEOF_KVM_LAPIC_STATE || at % APIC_REGISTER_STRIDE !== 0) {
      throw data.at(name).wrong(`a register of the local APIC: its offset is one of 0x0, 0x10 to 0x3f0`);
    }
    lapic.setUint32(at, data.integer(name, MAX_U32), true);
  }
  return lapic;
}

function numbered(data: StateReader, maximum: number, radix: 10 | 16): MsrValue[] {
  return data.names(maximum).map((name) => {
    const number = (radix === 10 ? /^\d{1,9}$/ : /^0x[0-9a-f]{1,8}$/).test(name) ? Number(name) : -1;
    if (number < 0) throw data.at(name).wrong("named by a number");
    return [number, data.hex64(name)];
  });
}

function xsaveFromData(data: StateReader): DataView<ArrayBuffer> {
  const bytes = data.bytes("xsave", { minimum: SIZEOF_KVM_XSAVE, maximum: MAX_XSAVE_BYTES });
  return new DataView(bytes.buffer);
}

export function cpuidToData(entry: CpuidEntry): State {
  return Object.fromEntries(CPUID_FIELDS.map((name) => [name, entry[name]]));
}

/** Throws StateError. */
export function cpuidFromData(data: StateReader): CpuidEntry {
  data.only(CPUID_FIELDS);
  const number = (name: string): number => data.integer(name, MAX_U32);
  return {
    function: number("function"),
    index: number("index"),
    flags: number("flags"),
    eax: number("eax"),
    ebx: number("ebx"),
    ecx: number("ecx"),
    edx: number("edx"),
  };
}
