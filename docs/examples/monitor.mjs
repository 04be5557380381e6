// A monitor of 20 lines on the low level: a kernel, an initramfs, a command with standard input, output and exit code.
//   node monitor.mjs KERNEL INITRD COMMAND...
import { createVm } from "vmlet";

const [kernel, initrd, ...command] = process.argv.slice(2);
const encoded = Buffer.from(command.join("\0")).toString("base64url");
const vm = createVm(
  { kernel, initrd, cmdline: `vmlet.exec=${encoded} vmlet.tty=raw`, memoryMib: 128, quiet: true, commandChannel: true },
  {
    output: (bytes, done) => process.stderr.write(bytes, () => done()),
    commandOutput: (bytes, done) => process.stdout.write(bytes, () => done()),
    commandError: (bytes, done) => process.stderr.write(bytes, () => done()),
    commandStarted: () => process.stdin.on("data", give).on("end", () => vm.endCommandInput()),
    commandRoom: () => process.stdin.resume(),
  },
);

function give(bytes) {
  const taken = vm.commandInput(bytes);
  if (taken < bytes.length) process.stdin.pause().unshift(bytes.subarray(taken));
}

process.once("SIGTERM", () => vm.stop());
const { outcome, exitStatus } = await vm.start();
await vm.close();
process.stdin.destroy();
process.exitCode = outcome === "poweroff" ? exitStatus : 1;
