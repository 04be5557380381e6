// Entry of a vCPU thread. KVM_RUN blocks this thread until the guest exits or a kick arrives,
// so nothing here may depend on the thread's event loop: it gets its work in shared words.
// The price is one thread a vCPU; the gain is that an exit is answered without a hop.
import { parentPort, workerData } from "node:worker_threads";
import { VcpuFd } from "../kvm/vcpu-fd.js";
import { gettid } from "../sys/kick.js";
import { describeRegisters, explainExit } from "../vcpu/explain-exit.js";
import { completeExit, runVcpu } from "../vcpu/loop.js";
import { ThreadMachine } from "./thread-machine.js";
import { describeFailure } from "../vcpu/failure.js";
import type { VcpuTripleFault, VcpuWorkerData } from "../vcpu/messages.js";
import {
  MILESTONE_FIRST_RUN,
  VCPU_IDLE,
  VCPU_PAUSED,
  VCPU_RUNNING,
  VCPU_STANDBY,
  VCPU_STOPPED,
} from "../vcpu/shared.js";

function runThread({ machine: descriptor, index, standby }: VcpuWorkerData): void {
  const address = descriptor.vcpus[index];
  if (address === undefined) throw new Error(`No vCPU ${String(index)}`);
  const vcpu = VcpuFd.attach(address.fd, address.runAddress, descriptor.mmapSize);
  const machine = new ThreadMachine(descriptor, index, vcpu);
  const { shared } = machine;
  if (shared.isStopping()) {
    shared.claimVcpu(index, VCPU_IDLE, VCPU_STOPPED);
    return;
  }
  if (standby) {
    if (!shared.claimVcpu(index, VCPU_IDLE, VCPU_STANDBY)) return;
    machine.kicker.wakeMain();
    shared.waitWhileVcpuState(index, VCPU_STANDBY);
    if (shared.vcpuState(index) !== VCPU_RUNNING) return;
    shared.setVcpuThread(index, gettid());
  } else {
    shared.setVcpuThread(index, gettid());
    if (!shared.claimVcpu(index, VCPU_IDLE, VCPU_RUNNING)) return;
    if (index === 0) shared.markMilestone(MILESTONE_FIRST_RUN, process.hrtime.bigint());
  }
  let isNew = descriptor.isRestored;
  try {
    while (!shared.isStopping()) {
      // What has been restored begins as if it had just been paused: fix-ups see its registers before it runs.
      const rests = shared.isPausing || isNew;
      isNew = false;
      const step = rests ? completeExit : runVcpu;
      const outcome = step(vcpu, machine.pio, machine.mmio, machine);
      if (outcome === "unknown") throw explainExit(vcpu, index);
      if (outcome === "triple-fault") {
        const message: VcpuTripleFault = { code: "TRIPLE_FAULT", registers: describeRegisters(vcpu) };
        parentPort?.postMessage(message);
      }
      if (outcome !== "interrupted" && outcome !== "handled") machine.stop(outcome);
      if (outcome === "interrupted" && rests && shared.isPausing) rest(machine, index);
      machine.answerHaltQuestion(vcpu);
      shared.throttleOutput();
    }
  } catch (error) {
    machine.stop("failed");
    parentPort?.postMessage(describeFailure(error));
  } finally {
    shared.setVcpuThread(index, 0);
    shared.setVcpuState(index, VCPU_STOPPED);
    machine.kicker.wakeMain();
  }
}

/** The vCPU is between two instructions: it waits until the VM is resumed or stopped. */
function rest({ shared, kicker }: ThreadMachine, index: number): void {
  shared.setVcpuState(index, VCPU_PAUSED);
  kicker.wakeMain();
  // Resumed, or stopped, before the state said so: nobody comes to wake this thread.
  if (!shared.isPausing || shared.isStopping()) shared.claimVcpu(index, VCPU_PAUSED, VCPU_RUNNING);
  shared.waitWhileVcpuState(index, VCPU_PAUSED);
}

runThread(workerData as VcpuWorkerData);
