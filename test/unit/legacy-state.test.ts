// Needs: nothing. The devices that lie in shared words, and the command's channel, saved and restored.
import assert from "node:assert/strict";
import {
  ACPI_PM_WORDS,
  AcpiPm,
  GPE0_EN,
  GPE0_STS,
  GPE_GENERATION,
  PM_TMR,
  PM1_CNT,
  PM1_EN,
} from "../../devices/legacy/acpi-pm.js";
import { raiseGpe, restoreAcpiPm, saveAcpiPm } from "../../devices/legacy/acpi-pm.js";
import { CmosRtc, RTC_DATA, RTC_INDEX } from "../../devices/legacy/cmos-rtc.js";
import { RtcInterrupts } from "../../devices/legacy/rtc-interrupts.js";
import { RTC_CHANGED, RTC_WORDS } from "../../devices/legacy/rtc-registers.js";
import { isRtcInterruptUp, restoreRtc, saveRtc } from "../../devices/legacy/rtc-state.js";
import { restoreSerial, saveSerial } from "../../devices/legacy/serial-state.js";
import { SERIAL_WORDS } from "../../devices/legacy/serial-words.js";
import {
  Serial,
  UART_FCR,
  UART_IER,
  UART_IER_RDI,
  UART_IER_THRI,
  UART_IIR,
  UART_LCR,
  UART_LCR_DLAB,
  UART_LSR,
  UART_LSR_BI,
  UART_MCR,
  UART_RX,
  UART_SCR,
} from "../../devices/legacy/serial.js";
import {
  CHANNEL_BYTES,
  CHANNEL_CONTROL_BYTES,
  CHANNEL_RING_BYTES,
  CommandChannel,
} from "../../devices/pseudo/command-channel.js";
import { StateReader, type State } from "../../devices/state.js";
import { restoreLegacy, saveLegacy } from "../../vmm/machine/legacy-state.js";
import { DEVICE_WORDS, rtcWords, serialWords } from "../../vmm/machine/thread-machine.js";
import { MILESTONE_COMMAND_START, MILESTONE_INIT, VmShared } from "../../vmm/vcpu/shared.js";
import { assertMutationsRefused } from "../helpers/mutated-state.js";

type Words = Int32Array<SharedArrayBuffer>;

const words = (count: number): Words => new Int32Array(new SharedArrayBuffer(count * 4));
const reader = (state: State): StateReader => new StateReader(JSON.parse(JSON.stringify(state)), "state");

describe("serial port: state", function () {
  this.timeout(20_000);

  function port(shared: Words) {
    const count = { interrupts: 0, room: 0 };
    const serial = new Serial(
      shared,
      { trigger: () => count.interrupts++ },
      { transmit: () => undefined, roomAvailable: () => count.room++ },
    );
    return { serial, count };
  }

  function busyPort(): { shared: Words; serial: Serial } {
    const shared = words(SERIAL_WORDS);
    const { serial } = port(shared);
    serial.write(UART_FCR, 1, 1);
    serial.write(UART_LCR, 1, UART_LCR_DLAB | 3);
    serial.write(0, 1, 12);
    serial.write(1, 1, 1);
    serial.write(UART_LCR, 1, 3);
    serial.write(UART_MCR, 1, 0x0b);
    serial.write(UART_SCR, 1, 0x5a);
    serial.write(UART_IER, 1, UART_IER_RDI | UART_IER_THRI);
    // Its ring of input is not at its start any more.
    for (let i = 0; i < 300; i++) {
      serial.receive(Uint8Array.of(i & 0xff));
      if (i >= 3) serial.read(UART_RX, 1);
    }
    serial.receiveBreak();
    return { shared, serial };
  }

  it("registers, input and a break go on; its interrupt comes once more if it was up", () => {
    const { shared, serial } = busyPort();
    const state = saveSerial(shared);
    const other = words(SERIAL_WORDS);
    restoreSerial(other, reader(state));
    assert.deepEqual(saveSerial(other), state);
    const restored = port(other);
    restored.serial.signal();
    assert.equal(restored.count.interrupts, 1);
    for (const device of [serial, restored.serial]) {
      const bytes: number[] = [];
      let breaks = 0;
      for (;;) {
        const status = device.read(UART_LSR, 1);
        if ((status & UART_LSR_BI) !== 0) breaks++;
        if ((status & 1) === 0) break;
        bytes.push(device.read(UART_RX, 1));
      }
      assert.deepEqual([bytes, breaks], [[41, 42, 43, 0], 1]);
    }
    for (const register of [UART_IIR, UART_LCR, UART_MCR, UART_SCR, UART_IER]) {
      assert.equal(restored.serial.read(register, 1), serial.read(register, 1), String(register));
    }
    assert.equal(restored.serial.receive(new Uint8Array(300)), 256);
    const idle = port(words(SERIAL_WORDS));
    idle.serial.signal();
    assert.equal(idle.count.interrupts, 0);
  });

  it("every field that is missing, unknown, of another type or off its limits is refused with its path", () => {
    assertMutationsRefused(saveSerial(busyPort().shared), "state", (changed) => {
      const other = words(SERIAL_WORDS);
      restoreSerial(other, new StateReader(changed, "state"));
      const { serial } = port(other);
      for (let i = 0; i < 300; i++) assert.ok(serial.read(UART_RX, 1) <= 0xff);
    });
  });
});

describe("real-time clock: state", function () {
  this.timeout(20_000);

  const NOW = Date.UTC(2026, 5, 1, 12, 0, 0);

  function clock(shared: Words, now: () => number) {
    const rtc = new CmosRtc(shared, () => undefined, now);
    return {
      get: (index: number): number => {
        rtc.write(RTC_INDEX, 1, index);
        return rtc.read(RTC_DATA, 1);
      },
      set: (index: number, value: number): void => {
        rtc.write(RTC_INDEX, 1, index);
        rtc.write(RTC_DATA, 1, value);
      },
    };
  }

  it("shows the host's time as the guest has moved it, and its alarm comes", () => {
    const shared = words(RTC_WORDS);
    const before = clock(shared, () => NOW);
    before.set(0x04, 0x15);
    before.set(0x40, 0x99);
    before.set(0x0b, 0x22);
    for (const [index, value] of [
      [1, 0x30],
      [3, 0x05],
      [5, 0x15],
    ] as const)
      before.set(index, value);
    const other = words(RTC_WORDS);
    restoreRtc(other, reader(saveRtc(shared)));
    // An hour later, on another host.
    const later = NOW + 3_600_000;
    const after = clock(other, () => later);
    assert.deepEqual(
      [0x04, 0x02, 0x40, 0x0a, 0x0b, 0x05].map((index) => after.get(index)),
      [0x16, 0x00, 0x99, 0x26, 0x22, 0x15],
    );
    assert.equal(other[RTC_CHANGED], 1, "nobody would make its interrupts");
    const interrupts = new RtcInterrupts(other, NOW);
    assert.equal(interrupts.nextMs(NOW), 330_000);
    assert.equal(isRtcInterruptUp(other), false);
    assert.equal(interrupts.raise(NOW + 330_000), true);
    assert.equal(isRtcInterruptUp(other), true);
    const third = words(RTC_WORDS);
    restoreRtc(third, reader(saveRtc(other)));
    assert.equal(isRtcInterruptUp(third), true);
    assert.deepEqual(saveRtc(third), saveRtc(other));
  });

  it("every field that is missing, unknown, of another type or off its limits is refused with its path", () => {
    assertMutationsRefused(saveRtc(words(RTC_WORDS)), "state", (changed) => {
      const other = words(RTC_WORDS);
      restoreRtc(other, new StateReader(changed, "state"));
      const { get } = clock(other, () => NOW);
      for (let index = 0; index < 128; index++) assert.ok(get(index) <= 0xff);
      new RtcInterrupts(other, NOW).nextMs(NOW);
    });
  });
});

describe("acpi-pm: state", function () {
  this.timeout(20_000);

  const power = { powerOff: () => assert.fail("off"), reset: () => assert.fail("reset") };

  it("registers stay, and the timer goes on from where it stood, over its wrap too", () => {
    const shared = words(ACPI_PM_WORDS);
    const pm = new AcpiPm(shared, power, () => 1_200_000);
    pm.write(PM1_EN, 2, 0x20);
    pm.write(PM1_CNT, 2, 0x1c00);
    pm.write(GPE0_EN, 1, 1);
    raiseGpe(shared, GPE_GENERATION);
    const ticks = pm.read(PM_TMR, 4);
    const state = saveAcpiPm(shared, 1_200_000);
    for (const hostMs of [3, 1_200_000, 99_000_000_000]) {
      const other = words(ACPI_PM_WORDS);
      let now = hostMs;
      restoreAcpiPm(other, reader(state), now);
      const restored = new AcpiPm(other, power, () => now);
      assert.equal(restored.read(PM_TMR, 4), ticks);
      assert.deepEqual([restored.read(PM1_EN, 2), restored.read(PM1_CNT, 2)], [0x20, 0x1c01]);
      assert.deepEqual([restored.read(GPE0_STS, 1), restored.read(GPE0_EN, 1)], [1, 1]);
      now += 1000;
      assert.ok(Math.abs(((restored.read(PM_TMR, 4) - ticks) >>> 0) - 3_579_545) <= 1);
      assert.ok(Math.abs(Number(saveAcpiPm(other, now)["timer"]) - restored.read(PM_TMR, 4)) <= 1);
    }
  });

  it("its timer is that of the host, the same for every thread", () => {
    const pm = new AcpiPm(words(ACPI_PM_WORDS), power);
    const expected = (): number => Math.floor((Number(process.hrtime.bigint()) / 1e9) * 3_579_545) >>> 0;
    const before = expected();
    const ticks = pm.read(PM_TMR, 4);
    assert.ok((ticks - before) >>> 0 <= (expected() - before) >>> 0, `${String(before)}, then ${String(ticks)}`);
  });

  it("every field that is missing, unknown, of another type or off its limits is refused with its path", () => {
    assertMutationsRefused(saveAcpiPm(words(ACPI_PM_WORDS)), "state", (changed) => {
      restoreAcpiPm(words(ACPI_PM_WORDS), new StateReader(changed, "state"));
    });
  });
});

describe("command channel: state", function () {
  this.timeout(20_000);

  it("goes on in the guest's memory where it was, and asks for input that it had refused", () => {
    const memory = new ArrayBuffer(CHANNEL_BYTES);
    const control = new Uint32Array(memory, 0, CHANNEL_CONTROL_BYTES / 4);
    const channel = new CommandChannel(memory, () => undefined);
    control[5] = 1;
    assert.equal(channel.putInput(new Uint8Array(CHANNEL_RING_BYTES + 1).fill(7)), CHANNEL_RING_BYTES);
    control[0] = 10;
    channel.consumeOutput(4);
    const state = channel.save();
    const copy = memory.slice(0);
    const other = new CommandChannel(copy, () => undefined);
    other.restore(reader(state));
    assert.deepEqual(other.save(), state);
    assert.equal(other.peekOutput().length, 6);
    assert.equal(other.putInput(Uint8Array.of(1)), 0);
    assert.equal(other.takeRoom(), false);
    new Uint32Array(copy)[3] = CHANNEL_RING_BYTES;
    assert.equal(other.takeRoom(), true);
    assert.equal(other.putInput(Uint8Array.of(9)), 1);
    assert.equal(new Uint8Array(copy)[CHANNEL_CONTROL_BYTES + CHANNEL_RING_BYTES], 9);
  });

  it("every field that is missing, unknown, of another type or off its limits is refused with its path", () => {
    const channel = new CommandChannel(new ArrayBuffer(CHANNEL_BYTES), () => undefined);
    assertMutationsRefused(channel.save(), "state", (changed) => {
      const other = new CommandChannel(new ArrayBuffer(CHANNEL_BYTES), () => undefined);
      other.restore(new StateReader(changed, "state"));
      assert.ok(other.peekOutput().length <= CHANNEL_RING_BYTES);
      assert.ok(other.putInput(new Uint8Array(4)) <= 4);
    });
  });
});

describe("legacy devices: state", function () {
  this.timeout(20_000);

  it("all of them find their words again, and the guest has reached what it had reached", () => {
    const shared = VmShared.create(1, DEVICE_WORDS);
    shared.markMilestone(MILESTONE_INIT, 5n);
    shared.setExitStatus(3);
    serialWords(shared)[5] = 0x5a;
    rtcWords(shared)[129] = -77;
    const state = saveLegacy(shared);
    const other = VmShared.create(2, DEVICE_WORDS);
    restoreLegacy(other, reader(state));
    const { acpiPm: before, ...rest } = state;
    const { acpiPm: after, ...restored } = saveLegacy(other);
    assert.deepEqual(restored, rest);
    assert.notEqual(before, after);
    assert.ok(other.milestone(MILESTONE_INIT) !== undefined);
    assert.equal(other.milestone(MILESTONE_COMMAND_START), undefined);
    assert.equal(other.exitStatus, 3);
    assertMutationsRefused(state, "state", (changed) => {
      restoreLegacy(VmShared.create(1, DEVICE_WORDS), new StateReader(changed, "state"));
    });
  });
});
