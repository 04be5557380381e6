// What the threads of one VM share: control words, one slot a vCPU, the device registers and
// the console's output ring, all in one SharedArrayBuffer. Each word has one name here.
// Values move by Atomics; counters have one writer and are read without.
import type { SharedWords } from "../../devices/contracts.js";
import { KVM_EXIT_INTR } from "../sys/kvm-abi.js";
import { COALESCED_WRITES } from "./coalesced-ring.js";

/** Why the VM ended; the index is what OUTCOME holds. */
export const OUTCOMES = ["running", "poweroff", "reboot", "triple-fault", "halted", "killed", "failed"] as const;
export type Outcome = (typeof OUTCOMES)[number];

// Control words.
/** Index into OUTCOMES; the first writer decides. */
const OUTCOME = 0;
/** Nonzero: the main thread has work (output, room for input, a stopped vCPU). */
const DOORBELL = 1;
/** 1 while the main thread runs vCPU 0 itself and must be kicked rather than woken. */
const MAIN_IN_KVM_RUN = 2;
/** 1 + exit status that the guest reported, 0 for none. */
const EXIT_STATUS = 3;
/** Lock over the ring of coalesced writes. */
export const COALESCED_LOCK = 4;
const TX_HEAD = 5;
const TX_TAIL = 6;
/** Nonzero while a vCPU waits for the output ring to drain. */
const TX_WAITERS = 7;
/** Nonzero: the serial port has room again for input that it had refused. */
const INPUT_ROOM = 8;
/** Counts the questions to the vCPUs whether they have halted for ever. */
const HALT_QUESTION = 9;
/** 1: the main thread is about to fetch output by itself, and need not be woken for it. */
const TX_GATHERING = 10;
/** Nonzero: every vCPU is to rest between two instructions, for the reasons in the bits. */
const REST = 12;
/** The VM is paused. */
const REST_PAUSE = 1;
/** Others wait for its threads. */
const REST_YIELD = 2;
/** 1: the guest has come to where a snapshot may be taken, and waits. */
const SNAPSHOT_POINT = 13;
/** Lock of vmm/fixups/cmpxchg16b.ts. */
export const CMPXCHG16B_LOCK = 11;
const CONTROL_WORDS = 16;

// Words of a vCPU's slot.
const SLOT_STATE = 0;
const SLOT_TID = 1;
/** The last HALT_QUESTION that this vCPU has answered with yes. */
const SLOT_HALTED = 2;
/** Exits by reason: SLOT_EXITS + KVM_EXIT_*. */
const SLOT_EXITS = 3;
const EXIT_REASONS = 48;
/** Instructions done by hand: SLOT_FIXUPS + index in FIXUP_NAMES. */
const SLOT_FIXUPS = SLOT_EXITS + EXIT_REASONS;
const FIXUPS = 16;
/** Its access to a device that another thread owns: virtio/register-calls.ts. */
const SLOT_CALL = SLOT_FIXUPS + FIXUPS;
const REGISTER_CALL_WORDS = 5;
const SLOT_WORDS = SLOT_CALL + REGISTER_CALL_WORDS;

/** A vCPU slot's states, in the order in which they follow each other. */
export const VCPU_IDLE = 0;
/** A worker is ready to take the vCPU over. */
export const VCPU_STANDBY = 1;
export const VCPU_RUNNING = 2;
export const VCPU_STOPPED = 3;
/** Its thread rests with it until it is VCPU_RUNNING again, or VCPU_PARKED. */
export const VCPU_PAUSED = 4;
/** Rests without a thread. */
export const VCPU_PARKED = 5;

/** Milestones keep the time of their first mark. The guest's boot timer may write any of them. */
const MILESTONE_FIRST_CODE = 121;
/** The monitor's own: just before the first KVM_RUN. */
export const MILESTONE_FIRST_RUN = 128;
/** The guest's init runs: the value of Firecracker's boot timer. */
export const MILESTONE_INIT = 123;
/** The guest's init starts, and has ended, the command that it was given. */
export const MILESTONE_COMMAND_START = 124;
export const MILESTONE_COMMAND_END = 125;
const MILESTONES = 8;

/** Above this, vCPUs wait. */
const TX_HIGH_WATER = 64 * 1024;
/**
 * What one vCPU may still bring that has begun an exit below the mark: a string instruction's 4,096
 * bytes (KVM's page for port data) and all of the ring of coalesced writes.
 */
const TX_BYTES_AN_EXIT = 4096 + COALESCED_WRITES;
const TX_RING_MIN_BYTES = 256 * 1024;

/** Room for all vCPUs at once; a power of two, because the indices count on beyond 2^32. */
function txRingBytes(vcpus: number): number {
  // One more: the main thread empties the ring of coalesced writes too.
  const most = TX_HIGH_WATER + (vcpus + 1) * TX_BYTES_AN_EXIT;
  return Math.max(TX_RING_MIN_BYTES, 2 ** Math.ceil(Math.log2(most)));
}

/** The shared memory of one VM, as one thread sees it. */
export class VmShared {
  readonly buffer: SharedArrayBuffer;
  readonly words: SharedWords;
  readonly #vcpus: number;
  readonly #milestones: BigInt64Array;
  readonly #tx: Uint8Array;
  readonly #devicesAt: number;

  private constructor(buffer: SharedArrayBuffer, vcpus: number, deviceWords: number) {
    this.buffer = buffer;
    this.#vcpus = vcpus;
    this.#devicesAt = CONTROL_WORDS + vcpus * SLOT_WORDS;
    const milestonesAt = (this.#devicesAt + deviceWords + 1) & ~1;
    const txAt = milestonesAt + 2 * MILESTONES;
    this.words = new Int32Array(buffer, 0, txAt);
    this.#milestones = new BigInt64Array(buffer, milestonesAt * 4, MILESTONES);
    this.#tx = new Uint8Array(buffer, txAt * 4, txRingBytes(vcpus));
  }

  static create(vcpus: number, deviceWords: number): VmShared {
    const words = CONTROL_WORDS + vcpus * SLOT_WORDS + deviceWords + 2 + 2 * MILESTONES;
    return new VmShared(new SharedArrayBuffer(words * 4 + txRingBytes(vcpus)), vcpus, deviceWords);
  }

  static attach(buffer: SharedArrayBuffer, vcpus: number, deviceWords: number): VmShared {
    return new VmShared(buffer, vcpus, deviceWords);
  }

  /** `count` words of device state from `offset`. */
  deviceWords(offset: number, count: number): SharedWords {
    return this.words.subarray(this.#devicesAt + offset, this.#devicesAt + offset + count);
  }

  // -- Outcome --

  get outcome(): Outcome {
    return OUTCOMES[Atomics.load(this.words, OUTCOME)] ?? "failed";
  }

  isStopping(): boolean {
    return Atomics.load(this.words, OUTCOME) !== 0;
  }

  /** True for the first caller; later reasons do not count. */
  tryStop(outcome: Exclude<Outcome, "running">): boolean {
    return Atomics.compareExchange(this.words, OUTCOME, 0, OUTCOMES.indexOf(outcome)) === 0;
  }

  get exitStatus(): number | undefined {
    const value = Atomics.load(this.words, EXIT_STATUS);
    return value === 0 ? undefined : value - 1;
  }

  setExitStatus(status: number): void {
    Atomics.store(this.words, EXIT_STATUS, status + 1);
  }

  // -- Rest --

  /** vCPUs do not run, or come to rest soon: threads look here. */
  get shallRest(): boolean {
    return Atomics.load(this.words, REST) !== 0;
  }

  get isPausing(): boolean {
    return (Atomics.load(this.words, REST) & REST_PAUSE) !== 0;
  }

  /** The caller then kicks them; or wakes those that rest. */
  set isPausing(value: boolean) {
    this.#setRest(REST_PAUSE, value);
  }

  get isYielding(): boolean {
    return (Atomics.load(this.words, REST) & REST_YIELD) !== 0;
  }

  /** The same, for others that wait for a thread. */
  set isYielding(value: boolean) {
    this.#setRest(REST_YIELD, value);
  }

  #setRest(bit: number, value: boolean): void {
    if (value) Atomics.or(this.words, REST, bit);
    else Atomics.and(this.words, REST, ~bit);
  }

  /** The guest is where a snapshot may be taken: it goes no further. */
  reachSnapshotPoint(): void {
    Atomics.store(this.words, SNAPSHOT_POINT, 1);
    this.isPausing = true;
  }

  /** True once for every time that it was reached. */
  takeSnapshotPoint(): boolean {
    return Atomics.exchange(this.words, SNAPSHOT_POINT, 0) !== 0;
  }

  // -- Waking the main thread --

  /** True if the bell was silent, so that one wake-up serves many rings. */
  ringDoorbell(): boolean {
    return Atomics.exchange(this.words, DOORBELL, 1) === 0;
  }

  get doorbellRang(): boolean {
    return Atomics.load(this.words, DOORBELL) !== 0;
  }

  answerDoorbell(): void {
    Atomics.store(this.words, DOORBELL, 0);
  }

  get isMainInKvmRun(): boolean {
    return Atomics.load(this.words, MAIN_IN_KVM_RUN) !== 0;
  }

  set isMainInKvmRun(value: boolean) {
    Atomics.store(this.words, MAIN_IN_KVM_RUN, value ? 1 : 0);
  }

  markInputRoom(): void {
    Atomics.store(this.words, INPUT_ROOM, 1);
  }

  /** True once for every markInputRoom. */
  takeInputRoom(): boolean {
    return Atomics.exchange(this.words, INPUT_ROOM, 0) !== 0;
  }

  // -- vCPU slots --

  vcpuState(vcpu: number): number {
    return Atomics.load(this.words, this.#slot(vcpu) + SLOT_STATE);
  }

  /** Moves the vCPU from one state to the next unless another thread has been faster. */
  claimVcpu(vcpu: number, from: number, to: number): boolean {
    const index = this.#slot(vcpu) + SLOT_STATE;
    const claimed = Atomics.compareExchange(this.words, index, from, to) === from;
    if (claimed) Atomics.notify(this.words, index);
    return claimed;
  }

  setVcpuState(vcpu: number, state: number): void {
    const index = this.#slot(vcpu) + SLOT_STATE;
    Atomics.store(this.words, index, state);
    Atomics.notify(this.words, index);
  }

  /** Blocks the calling thread while the vCPU is in `state`. */
  waitWhileVcpuState(vcpu: number, state: number): void {
    Atomics.wait(this.words, this.#slot(vcpu) + SLOT_STATE, state);
  }

  /** Thread that runs the vCPU, 0 for none. */
  vcpuThread(vcpu: number): number {
    return Atomics.load(this.words, this.#slot(vcpu) + SLOT_TID);
  }

  setVcpuThread(vcpu: number, tid: number): void {
    Atomics.store(this.words, this.#slot(vcpu) + SLOT_TID, tid);
  }

  // -- Halt: see vmm/machine/halt-watcher.ts --

  /** A new question to every vCPU; the caller kicks them to it. */
  askHalted(): void {
    Atomics.add(this.words, HALT_QUESTION, 1);
  }

  get haltQuestion(): number {
    return Atomics.load(this.words, HALT_QUESTION);
  }

  answerHalted(vcpu: number, question: number): void {
    Atomics.store(this.words, this.#slot(vcpu) + SLOT_HALTED, question);
  }

  /** True if the vCPU has said yes to the latest question. */
  isHalted(vcpu: number): boolean {
    const question = this.haltQuestion;
    return question !== 0 && Atomics.load(this.words, this.#slot(vcpu) + SLOT_HALTED) === question;
  }

  /** Exits of all vCPUs that the guest caused: a kick is none. */
  guestExits(): number {
    const counts = this.totalExits();
    return counts.reduce((sum, count, reason) => (reason === KVM_EXIT_INTR ? sum : sum + count), 0);
  }

  /** Index in `words` of the vCPU's exit counters, by KVM_EXIT_*. */
  exitCounters(vcpu: number): SharedWords {
    const at = this.#slot(vcpu) + SLOT_EXITS;
    return this.words.subarray(at, at + EXIT_REASONS);
  }

  /** Exits of all vCPUs by reason. */
  totalExits(): number[] {
    const totals = new Array<number>(EXIT_REASONS).fill(0);
    for (let vcpu = 0; vcpu < this.#vcpus; vcpu++) {
      this.exitCounters(vcpu).forEach((count, reason) => {
        totals[reason] = (totals[reason] ?? 0) + (count >>> 0);
      });
    }
    return totals;
  }

  /** Counters of the vCPU's fix-ups, in the order of FIXUP_NAMES. */
  fixupCounters(vcpu: number): SharedWords {
    const at = this.#slot(vcpu) + SLOT_FIXUPS;
    return this.words.subarray(at, at + FIXUPS);
  }

  /** Fix-ups of all vCPUs. */
  totalFixups(): number[] {
    const totals = new Array<number>(FIXUPS).fill(0);
    for (let vcpu = 0; vcpu < this.#vcpus; vcpu++) {
      this.fixupCounters(vcpu).forEach((count, index) => {
        totals[index] = (totals[index] ?? 0) + (count >>> 0);
      });
    }
    return totals;
  }

  /** The vCPU's words of register-calls.ts. */
  registerCall(vcpu: number): SharedWords {
    const at = this.#slot(vcpu) + SLOT_CALL;
    return this.words.subarray(at, at + REGISTER_CALL_WORDS);
  }

  #slot(vcpu: number): number {
    return CONTROL_WORDS + vcpu * SLOT_WORDS;
  }

  // -- Milestones --

  /** Keeps the first time of each code from 121 to 128; others are ignored. */
  markMilestone(code: number, timeNs: bigint): void {
    const index = code - MILESTONE_FIRST_CODE;
    if (index < 0 || index >= MILESTONES) return;
    Atomics.compareExchange(this.#milestones, index, 0n, timeNs);
  }

  /** CLOCK_MONOTONIC nanoseconds, or undefined if the guest has not marked it. */
  milestone(code: number): bigint | undefined {
    const time = Atomics.load(this.#milestones, code - MILESTONE_FIRST_CODE);
    return time === 0n ? undefined : time;
  }

  // -- Console output ring: any vCPU thread puts (under the serial port's lock), the main thread takes --

  /** False if the ring is full; callers stop at the mark (outputIsHigh), above which the output of one exit still fits. */
  putOutput(byte: number): boolean {
    const head = Atomics.load(this.words, TX_HEAD);
    const used = (head - Atomics.load(this.words, TX_TAIL)) >>> 0;
    if (used >= this.#tx.length) return false;
    this.#tx[(head >>> 0) % this.#tx.length] = byte;
    Atomics.store(this.words, TX_HEAD, (head + 1) | 0);
    return true;
  }

  /** True while output needs no wake-up of its own. */
  isGathering(): boolean {
    return Atomics.load(this.words, TX_GATHERING) !== 0;
  }

  setGathering(value: boolean): void {
    Atomics.store(this.words, TX_GATHERING, value ? 1 : 0);
  }

  get outputPending(): number {
    return (Atomics.load(this.words, TX_HEAD) - Atomics.load(this.words, TX_TAIL)) >>> 0;
  }

  /** Copies all pending output, up to the ring's wrap-around; empty if there is none. */
  peekOutput(): Uint8Array {
    const tail = Atomics.load(this.words, TX_TAIL) >>> 0;
    const start = tail % this.#tx.length;
    const length = Math.min(this.outputPending, this.#tx.length - start);
    return this.#tx.slice(start, start + length);
  }

  /** Frees `length` bytes that have been written out, and lets waiting vCPUs go on. */
  consumeOutput(length: number): void {
    Atomics.add(this.words, TX_TAIL, length);
    if (Atomics.load(this.words, TX_WAITERS) !== 0) Atomics.notify(this.words, TX_TAIL);
  }

  outputIsHigh(): boolean {
    return this.outputPending > TX_HIGH_WATER;
  }

  /**
   * Back-pressure: holds a vCPU thread (never the main one) while the host's console is slower
   * than the guest. Called outside every lock; a stop ends it within the time-out.
   */
  throttleOutput(): void {
    while (this.outputIsHigh() && !this.isStopping() && !this.shallRest) {
      const tail = Atomics.load(this.words, TX_TAIL);
      Atomics.add(this.words, TX_WAITERS, 1);
      if (this.outputIsHigh()) Atomics.wait(this.words, TX_TAIL, tail, 100);
      Atomics.sub(this.words, TX_WAITERS, 1);
    }
  }
}
