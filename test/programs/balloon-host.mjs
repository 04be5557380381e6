// The host's end of the balloon test: node balloon-host.mjs LIBRARY KERNEL INITRD
// Runs a VM by the library and writes the resident memory of this process at each step, as JSON.
import { setTimeout as sleep } from "node:timers/promises";

const [, , library, kernel, initrd] = process.argv;
const { createVm } = (await import(library)).default;
const MIB = 2 ** 20;

/** Has 32 MiB of the guest's memory touched at each line of input, and says so. */
const SCRIPT = `echo ready; while read line; do head -c 33554432 /dev/zero >/tmp/fill; rm /tmp/fill; echo filled; done`;

async function run(memoryMib, balloon, steps) {
  let output = "";
  const cmdline = `vmlet.exec=${Buffer.from(["sh", "-c", SCRIPT].join("\0")).toString("base64url")} vmlet.tty=raw`;
  const vm = createVm(
    { kernel, initrd, cmdline, quiet: true, memoryMib, balloon },
    {
      output: (bytes, done) => {
        output += Buffer.from(bytes).toString("latin1");
        done();
      },
    },
  );
  const ended = vm.start({ threads: "threads" });
  const until = async (isTrue) => {
    for (let tries = 0; tries < 600 && !isTrue(); tries++) await sleep(100);
    return isTrue();
  };
  const residentMib = () => Math.round(process.memoryUsage.rss() / MIB);
  const fill = async () => {
    const before = output.length;
    vm.input(Buffer.from("go\n"));
    await until(() => output.slice(before).includes("filled"));
    return residentMib();
  };
  const inflate = async (mib) => {
    vm.setBalloon(mib);
    const isReached = await until(() => vm.statistics().balloon.actualBytes === mib * MIB);
    return isReached ? residentMib() : -1;
  };
  const settle = async (below) => {
    await until(() => residentMib() < below);
    return residentMib();
  };
  const guestTotal = () => until(() => vm.statistics().balloon.guest?.totalMemory !== undefined);
  await until(() => output.includes("ready"));
  const result = await steps({ fill, inflate, settle, guestTotal, residentMib });
  const { balloon0 } = vm.statistics().devices;
  vm.stop();
  await ended;
  await vm.close();
  return { ...result, counters: balloon0 };
}

const inflating = await run(96, { targetMib: 0 }, async ({ fill, inflate, guestTotal }) => ({
  filled: await fill(),
  inflated: await inflate(64),
  tellsTotal: await guestTotal(),
  deflated: await inflate(0),
  filledAgain: await fill(),
}));
// Linux reports blocks of 4 MiB, and only while more than 32 of them are free.
const reporting = await run(160, { targetMib: 0, reporting: true }, async ({ fill, settle }) => {
  const filled = await fill();
  return { filled, settled: await settle(filled - 20) };
});
process.stdout.write(JSON.stringify({ inflating, reporting }));
process.exit(0);
