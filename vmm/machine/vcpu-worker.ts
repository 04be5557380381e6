// Entry of a vCPU thread, which runs one vCPU after another: a turn each. KVM_RUN blocks this thread until the guest
// exits or a kick arrives, so nothing of a turn may depend on the thread's event loop: it gets its work in shared
// words. The price is one thread a running vCPU; the gain is that an exit is answered without a hop.
import { parentPort, workerData } from "node:worker_threads";
import { filterThisThread, VCPU_THREAD_NAME } from "../jail/thread-filter.js";
import { VcpuFd } from "../kvm/vcpu-fd.js";
import { gettid } from "../sys/kick.js";
import { describeRegisters, explainExit } from "../vcpu/explain-exit.js";
import { completeExit, runVcpu } from "../vcpu/loop.js";
import { ThreadMachine } from "./thread-machine.js";
import { describeFailure } from "../vcpu/failure.js";
import { END_THREAD, type VcpuTurn, type VcpuTurnReport } from "../vcpu/messages.js";
import {
  MILESTONE_FIRST_RUN,
  VCPU_IDLE,
  VCPU_PARKED,
  VCPU_PAUSED,
  VCPU_RUNNING,
  VCPU_STANDBY,
  VCPU_STOPPED,
} from "../vcpu/shared.js";

function report(turn: number, message?: VcpuTurnReport["message"]): void {
  const text: VcpuTurnReport = { turn, message };
  parentPort?.postMessage(text);
}

/** Whatever it was: this thread runs no other vCPU. */
let hasFailed = false;

function fail(turn: number, error: unknown): void {
  hasFailed = true;
  report(turn, describeFailure(error));
}

/** Makes the machine of this thread for the vCPU; undefined if there is nothing to run any more. */
function takeVcpu({ machine: descriptor, index, standby }: VcpuTurn) {
  const address = descriptor.vcpus[index];
  if (address === undefined) throw new Error(`No vCPU ${String(index)}`);
  const vcpu = VcpuFd.attach(address.fd, address.runAddress, descriptor.mmapSize);
  const machine = new ThreadMachine(descriptor, index, vcpu);
  const { shared } = machine;
  if (shared.isStopping()) shared.claimVcpu(index, VCPU_IDLE, VCPU_STOPPED);
  else if (standby) {
    if (!shared.claimVcpu(index, VCPU_IDLE, VCPU_STANDBY)) return undefined;
    machine.kicker.wakeMain();
    shared.waitWhileVcpuState(index, VCPU_STANDBY);
  } else shared.claimVcpu(index, VCPU_IDLE, VCPU_RUNNING);
  return shared.vcpuState(index) === VCPU_RUNNING ? { vcpu, machine } : undefined;
}

/** Until the VM stops, or the vCPU is to rest without a thread. */
function run(turn: VcpuTurn): void {
  const taken = takeVcpu(turn);
  if (taken === undefined) return;
  const { vcpu, machine } = taken;
  const { shared } = machine;
  const { index } = turn;
  shared.setVcpuThread(index, gettid());
  if (index === 0) shared.markMilestone(MILESTONE_FIRST_RUN, process.hrtime.bigint());
  let isParked = false;
  let isNew = true;
  try {
    while (!shared.isStopping()) {
      // Another thread may have had it, in this process or before a snapshot: fix-ups see its registers before it runs.
      const rests = shared.shallRest || isNew;
      isNew = false;
      const step = rests ? completeExit : runVcpu;
      const outcome = step(vcpu, machine.pio, machine.mmio, machine);
      if (outcome === "unknown") throw explainExit(vcpu, index);
      if (outcome === "triple-fault") report(turn.turn, { code: "TRIPLE_FAULT", registers: describeRegisters(vcpu) });
      if (outcome !== "interrupted" && outcome !== "handled") machine.stop(outcome);
      if (outcome === "interrupted" && rests && shared.shallRest) isParked = rest(machine, index);
      if (isParked) break;
      machine.answerHaltQuestion(vcpu);
      shared.throttleOutput();
    }
  } catch (error) {
    machine.stop("failed");
    fail(turn.turn, error);
  } finally {
    shared.setVcpuThread(index, 0);
    if (!isParked) shared.setVcpuState(index, VCPU_STOPPED);
    machine.kicker.wakeMain();
  }
}

/**
 * The vCPU is between two instructions: it waits until the VM is to go on or is stopped. True if it rests without this
 * thread from now on.
 */
function rest({ shared, kicker }: ThreadMachine, index: number): boolean {
  shared.setVcpuState(index, VCPU_PAUSED);
  kicker.wakeMain();
  // Resumed, or stopped, before the state said so: nobody comes to wake this thread.
  if (!shared.shallRest || shared.isStopping()) shared.claimVcpu(index, VCPU_PAUSED, VCPU_RUNNING);
  shared.waitWhileVcpuState(index, VCPU_PAUSED);
  const state = shared.vcpuState(index);
  return state === VCPU_PARKED || state === VCPU_STOPPED;
}

parentPort?.on("message", (message: VcpuTurn | typeof END_THREAD) => {
  if (message === END_THREAD) {
    parentPort?.close();
    return;
  }
  try {
    run(message);
  } catch (error) {
    fail(message.turn, error);
  }
  report(message.turn);
  if (hasFailed) parentPort?.close();
});
// In a process that was sealed before this thread began.
if (workerData instanceof Uint8Array) filterThisThread(workerData, VCPU_THREAD_NAME);
// Ready: all is loaded.
report(0);
