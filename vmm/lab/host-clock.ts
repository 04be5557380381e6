// This host's processor and its time stamp counter, which a guest of QEMU's interpreter has for its own.
import { readFileSync } from "node:fs";

/** The kernel counts two for each turn of its delay loop, which takes a tick of the counter. */
const KHZ_PER_BOGOMIPS = 500;

export interface HostClock {
  /** Of the processor; empty where the kernel does not say. */
  readonly model: string;
  /** The counter's rate, `kHz`; 0 where the kernel does not say. */
  readonly khz: number;
}

export function hostClock(): HostClock {
  const cpuinfo = readFileSync("/proc/cpuinfo", "latin1");
  const [, model = ""] = /^model name\s*:\s*(.*)$/m.exec(cpuinfo) ?? [];
  const [, bogomips = "0"] = /^bogomips\s*:\s*([\d.]+)$/m.exec(cpuinfo) ?? [];
  return { model, khz: Math.round(Number(bogomips) * KHZ_PER_BOGOMIPS) };
}
