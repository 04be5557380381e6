// A step of CI: a checkout goes into a VM, its tests run there, what they have made comes back, with their exit code.
//   node ci-step.mjs IMAGE CHECKOUT RESULTS COMMAND...        such as: oci:./ci . ./results npm test
import { once } from "node:events";
import { Vm } from "vmlet";

const [image, checkout, results, ...command] = process.argv.slice(2);

const vm = await Vm.start({ image, onProgress: (text) => console.error(`step: ${text}`) });
// Ctrl-C and the runner's time limit end the VM.
for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => vm.close());
try {
  // A copy: nothing that the step does reaches the checkout.
  await vm.files.copyIn(checkout, "/checkout");
  const options = { cwd: "/checkout", env: { CI: "true" }, noInput: true, timeoutMs: 600_000 };
  const step = await vm.exec(command, options).process();
  for await (const { output, data } of step) {
    // A reader that is slow slows the step down; nothing piles up here.
    if (!process[output].write(data)) await once(process[output], "drain");
  }
  const { exitCode } = await step.exit;
  if (await vm.files.exists("/checkout/results")) await vm.files.copyOut("/checkout/results", results);
  process.exitCode = exitCode;
} finally {
  await vm.close();
}
