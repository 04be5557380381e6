// Needs: nothing.
import assert from "node:assert/strict";
import {
  ACPI_PM_WORDS,
  AcpiPm,
  GPE0_EN,
  GPE0_STS,
  GPE_GENERATION,
  raiseGpe,
  PM1_CNT,
  PM1_EN,
  PM_TMR,
  RESET_REG,
  SLP_EN,
} from "../../devices/legacy/acpi-pm.js";
import { BOOT_TIMER_CHANNEL } from "../../devices/pseudo/command-channel.js";
import { CmosRtc, RTC_DATA, RTC_INDEX } from "../../devices/legacy/cmos-rtc.js";
import { RtcInterrupts } from "../../devices/legacy/rtc-interrupts.js";
import { RTC_WORDS } from "../../devices/legacy/rtc-registers.js";
import {
  I8042,
  I8042_COMMAND,
  I8042_DATA,
  I8042_WORDS,
  plugKeyboard,
  restoreKeyboard,
  saveKeyboard,
} from "../../devices/legacy/i8042.js";
import { StateReader, type State } from "../../devices/state.js";
import { Random } from "../fuzz/random.js";
import {
  BOOT_TIMER_EXIT_STATUS,
  BOOT_TIMER_MAGIC,
  BOOT_TIMER_MAGIC_REGISTER,
  BOOT_TIMER_MILESTONE,
  BOOT_TIMER_POWER_OFF,
  BOOT_TIMER_SNAPSHOT,
  BootTimer,
} from "../../devices/pseudo/boot-timer.js";

const words = (count: number) => new Int32Array(new SharedArrayBuffer(count * 4));

describe("i8042", () => {
  const none = { trigger: (): void => undefined };

  it("its status is always empty without a keyboard, so that no guest spins on it", () => {
    const device = new I8042(words(I8042_WORDS), none, () => assert.fail("no reset was asked for"));
    assert.equal(device.read(I8042_COMMAND, 1), 0);
    device.write(I8042_DATA, 1, 0xfe);
    device.write(I8042_COMMAND, 1, 0xd1);
    assert.equal(device.pressCtrlAltDel(), false);
  });

  it("the reset command resets, with a keyboard or without one", () => {
    for (const isThere of [false, true]) {
      let resets = 0;
      const shared = words(I8042_WORDS);
      if (isThere) plugKeyboard(shared);
      new I8042(shared, none, () => resets++).write(I8042_COMMAND, 1, 0xfe);
      assert.equal(resets, 1);
    }
  });

  describe("with a keyboard", () => {
    let shared: ReturnType<typeof words>;
    let interrupts: number;
    let device: I8042;
    beforeEach(() => {
      shared = words(I8042_WORDS);
      plugKeyboard(shared);
      interrupts = 0;
      device = new I8042(shared, { trigger: () => interrupts++ }, () => assert.fail("no reset was asked for"));
    });
    const command = (byte: number): void => device.write(I8042_COMMAND, 1, byte);
    const data = (byte: number): void => device.write(I8042_DATA, 1, byte);
    const isFull = (): boolean => (device.read(I8042_COMMAND, 1) & 1) !== 0;
    const all = (): number[] => {
      const bytes: number[] = [];
      while (isFull()) bytes.push(device.read(I8042_DATA, 1));
      return bytes;
    };

    it("a driver finds it: control byte, tests, identity", () => {
      command(0x60);
      data(0x65);
      command(0x20);
      assert.deepEqual(all(), [0x65]);
      command(0xaa);
      assert.deepEqual(all(), [0x55]);
      command(0xab);
      assert.deepEqual(all(), [0]);
      command(0xad);
      command(0x20);
      assert.deepEqual(all(), [0x75]);
      command(0xae);
      data(0xf2);
      assert.deepEqual(all(), [0xfa, 0xab, 0x83]);
      data(0xed);
      assert.deepEqual(all(), [0xfa]);
    });

    it("Ctrl-Alt-Del comes as scan codes of set 2, each with an interrupt", () => {
      command(0x60);
      data(0x01);
      assert.equal(device.pressCtrlAltDel(), true);
      assert.equal(interrupts, 1);
      assert.deepEqual(all(), [0x14, 0x11, 0xe0, 0x71, 0xe0, 0xf0, 0x71, 0xf0, 0x11, 0xf0, 0x14]);
      assert.equal(interrupts, 11);
    });

    it("a guest that reads nothing fills no more than the buffer, and gets no interrupt that it has not asked for", () => {
      assert.equal(device.pressCtrlAltDel(), true);
      for (let i = 0; i < 100; i++) assert.equal(device.pressCtrlAltDel(), false);
      assert.equal(interrupts, 0);
      assert.equal(all().length, 11);
      assert.equal(device.pressCtrlAltDel(), true);
    });

    it("what the guest does at random ends in bytes", () => {
      const random = new Random(3);
      for (let i = 0; i < 20_000; i++) {
        const offset = random.oneIn(2) ? I8042_COMMAND : random.below(5);
        const byte = random.below(256);
        if (random.oneIn(3)) {
          const read = device.read(offset, 1);
          assert.ok(read >= 0 && read <= 255);
        } else if (offset !== I8042_COMMAND || byte !== 0xfe) device.write(offset, 1, byte);
        if (random.oneIn(50)) device.pressCtrlAltDel();
      }
    });

    it("goes on from a saved state", () => {
      command(0x60);
      data(0x01);
      device.pressCtrlAltDel();
      device.read(I8042_DATA, 1);
      const state = JSON.parse(JSON.stringify(saveKeyboard(shared))) as State;
      const other = words(I8042_WORDS);
      restoreKeyboard(other, new StateReader(state, "keyboard"));
      device = new I8042(other, none, () => assert.fail("no reset was asked for"));
      assert.deepEqual(all(), [0x11, 0xe0, 0x71, 0xe0, 0xf0, 0x71, 0xf0, 0x11, 0xf0, 0x14]);
      command(0x20);
      assert.deepEqual(all(), [0x01]);
    });
  });
});

describe("cmos-rtc", () => {
  const START = Date.UTC(2039, 11, 31, 23, 58, 7, 250);
  let now = START;
  let changes = 0;
  let rtc = new CmosRtc(words(RTC_WORDS));
  let interrupts = new RtcInterrupts(words(RTC_WORDS), now);
  beforeEach(() => {
    now = START;
    changes = 0;
    const shared = words(RTC_WORDS);
    rtc = new CmosRtc(
      shared,
      () => changes++,
      () => now,
    );
    interrupts = new RtcInterrupts(shared, now);
  });
  const register = (index: number): number => {
    rtc.write(RTC_INDEX, 1, index | 0x80);
    return rtc.read(RTC_DATA, 1);
  };
  const set = (index: number, value: number): void => {
    rtc.write(RTC_INDEX, 1, index);
    rtc.write(RTC_DATA, 1, value);
    interrupts.restart(now);
  };
  const clock = (): number[] => [0x32, 9, 8, 7, 4, 2, 0].map(register);

  it("shows UTC in BCD, century included", () => {
    assert.deepEqual(clock(), [0x20, 0x39, 0x12, 0x31, 0x23, 0x58, 0x07]);
    assert.equal(register(6), 7, "a Saturday");
  });

  it("in binary, and with twelve hours, if the guest wants it so", () => {
    set(0x0b, 0x06);
    assert.deepEqual(clock(), [20, 39, 12, 31, 23, 58, 7]);
    set(0x0b, 0x00);
    assert.equal(register(4), 0x91, "eleven in the evening");
    set(0x0b, 0x04);
    assert.equal(register(4), 0x80 | 11);
  });

  it("its battery is good; an update shows for the last two milliseconds of a second", () => {
    assert.equal(register(0x0a), 0x26);
    assert.equal(register(0x0b), 0x02);
    assert.equal(register(0x0d), 0x80);
    now = START - 250 + 998;
    assert.equal(register(0x0a), 0xa6);
    now += 2;
    assert.equal(register(0x0a), 0x26);
  });

  it("a clock that the guest sets goes on from there, and its other registers keep what is written", () => {
    set(0x0b, 0x82);
    now += 5000;
    assert.equal(register(0), 0x07, "it stands while it is set");
    for (const [index, value] of [
      [0x32, 0x20],
      [9, 0x24],
      [8, 0x02],
      [7, 0x28],
      [4, 0x23],
      [2, 0x59],
      [0, 0x58],
    ] as const) {
      set(index, value);
    }
    set(0x0b, 0x02);
    assert.deepEqual(clock(), [0x20, 0x24, 0x02, 0x28, 0x23, 0x59, 0x58]);
    now += 2000;
    assert.deepEqual(clock(), [0x20, 0x24, 0x02, 0x29, 0x00, 0x00, 0x00]);
    set(2, 0x30);
    assert.equal(register(2), 0x30, "also without stopping it");
    assert.equal(register(0), 0x00);
    set(0x40, 0xa5);
    assert.equal(register(0x40), 0xa5);
    set(0x0d, 0);
    assert.equal(register(0x0d), 0x80);
  });

  it("what is written while the clock is set stays, however often register B is written meanwhile", () => {
    set(0x0b, 0x82);
    set(0, 0x44);
    now += 3000;
    set(0x0b, 0x82);
    assert.equal(register(0), 0x44);
    set(0x0b, 0x02);
    assert.equal(register(0), 0x44);
    now += 1000;
    assert.equal(register(0), 0x45);
  });

  it("interrupts after each update: the flag is set once a second, and reading it lets the line go", () => {
    assert.equal(interrupts.nextMs(now), undefined);
    set(0x0b, 0x12);
    assert.equal(changes, 1);
    assert.equal(interrupts.nextMs(now), 750);
    assert.equal(interrupts.raise(now + 749), false);
    assert.equal(interrupts.raise(now + 750), true);
    assert.equal(interrupts.raise(now + 1750), false, "the line is up already");
    assert.equal(register(0x0c), 0x90);
    assert.equal(register(0x0c), 0);
    assert.equal(interrupts.raise(now + 2750), true);
    set(0x0b, 0x02);
    assert.equal(interrupts.nextMs(now), undefined);
    assert.equal(interrupts.raise(now + 9000), false);
  });

  it("interrupts at the alarm, today or tomorrow, with fields that match anything", () => {
    set(0x0b, 0x22);
    const alarm = (hours: number, minutes: number, seconds: number): number | undefined => {
      set(5, hours);
      set(3, minutes);
      set(1, seconds);
      return interrupts.nextMs(now);
    };
    assert.equal(alarm(0x23, 0x58, 0x08), 750);
    assert.equal(alarm(0x23, 0x58, 0x02), 86_400_000 - 5250, "tomorrow");
    assert.equal(alarm(0x23, 0x58, 0x06), 0, "late: its second began while it was set");
    assert.equal(alarm(0x06, 0x00, 0x00), (6 * 3600 + 113) * 1000 - 250);
    assert.equal(alarm(0xff, 0xff, 0x00), 52_750);
    assert.equal(alarm(0xc0, 0x57, 0xc0), (59 * 60 - 7) * 1000 - 250);
    assert.equal(alarm(0xff, 0xff, 0xff), 0, "each second");
    assert.equal(alarm(0x23, 0x61, 0x00), undefined, "no such time");
    assert.equal(alarm(0x23, 0x59, 0x00), 52_750);
    assert.equal(interrupts.raise(now + 52_749), false);
    assert.equal(interrupts.raise(now + 52_750), true);
    assert.equal(register(0x0c), 0xa0);
    now += 52_750;
    set(0x0b, 0x22);
    assert.equal(interrupts.nextMs(now), 86_400_000, "an alarm that has been is not late");
  });

  it("interrupts periodically, at the rate of register A", () => {
    set(0x0b, 0x42);
    assert.equal(interrupts.nextMs(now), 1000 / 1024);
    set(0x0a, 0x2f);
    assert.equal(interrupts.nextMs(now), 500);
    assert.equal(interrupts.raise(now + 500), true);
    assert.equal(register(0x0c), 0xc0);
    set(0x0a, 0x21);
    assert.equal(interrupts.nextMs(now), 1000 / 256);
    set(0x0a, 0x20);
    assert.equal(interrupts.nextMs(now), undefined);
    // The data sheet's table: the first two rates are those of 8 and 9, the others are halves of each other.
    const hertz = [256, 128, 8192, 4096, 2048, 1024, 512, 256, 128, 64, 32, 16, 8, 4, 2];
    for (const [index, rate] of hertz.entries()) {
      set(0x0a, 0x21 + index);
      assert.equal(interrupts.nextMs(now), 1000 / rate, String(index + 1));
    }
  });

  it("setting the clock ends the update interrupts, as the data sheet has it", () => {
    set(0x0b, 0x12);
    set(0x0b, 0x92);
    assert.equal(register(0x0b), 0x82);
    assert.equal(interrupts.nextMs(now), undefined);
  });
});

describe("acpi-pm", () => {
  const events: string[] = [];
  let now = 0;
  const power = { powerOff: () => events.push("off"), reset: () => events.push("reset") };
  const pm = new AcpiPm(words(ACPI_PM_WORDS), power, () => now);

  it("only S5 with SLP_EN powers off", () => {
    pm.write(PM1_CNT, 2, 5 << 10);
    pm.write(PM1_CNT, 2, SLP_EN | (3 << 10));
    assert.deepEqual(events, []);
    pm.write(PM1_CNT, 2, SLP_EN | (5 << 10));
    assert.deepEqual(events.splice(0), ["off"]);
    assert.equal(pm.read(PM1_CNT, 2) & SLP_EN, 0);
  });

  it("the reset register takes its value only", () => {
    pm.write(RESET_REG, 1, 0);
    assert.deepEqual(events, []);
    pm.write(RESET_REG, 1, 1);
    assert.deepEqual(events.splice(0), ["reset"]);
  });

  it("is in ACPI mode, keeps the enable bits, and its timer runs at 3.579545 MHz", () => {
    assert.equal(pm.read(PM1_CNT, 2) & 1, 1);
    pm.write(PM1_EN, 2, 0x120);
    assert.equal(pm.read(PM1_EN, 2), 0x120);
    now = 1000;
    assert.equal(pm.read(PM_TMR, 4), 3_579_545);
    now = 10_000_000;
    assert.equal(pm.read(PM_TMR, 4), (3_579_545 * 10_000) % 2 ** 32);
  });
});

describe("acpi-pm: general-purpose events", () => {
  const power = { powerOff: () => undefined, reset: () => undefined };

  it("an event is shown until it is cleared by writing 1, and interrupts only where it is enabled", () => {
    const own = words(ACPI_PM_WORDS);
    const pm = new AcpiPm(own, power);
    assert.deepEqual([pm.read(GPE0_STS, 1), pm.read(GPE0_EN, 1)], [0, 0]);
    assert.equal(raiseGpe(own, GPE_GENERATION), false);
    assert.equal(pm.read(GPE0_STS, 1), 1);
    pm.write(GPE0_EN, 1, 0xff);
    assert.equal(pm.read(GPE0_EN, 1), 1, "there is one event");
    pm.write(GPE0_STS, 1, 0);
    assert.equal(pm.read(GPE0_STS, 1), 1);
    pm.write(GPE0_STS, 1, 0xff);
    assert.equal(pm.read(GPE0_STS, 1), 0);
    assert.equal(raiseGpe(own, GPE_GENERATION), true);
    pm.write(GPE0_EN, 1, 0);
    assert.equal(raiseGpe(own, GPE_GENERATION), false);
  });
});

describe("boot-timer", () => {
  it("hands on milestones, the exit status and the power-off", () => {
    const events: string[] = [];
    const host = {
      milestone: (code: number) => events.push(`milestone ${String(code)}`),
      exitStatus: (status: number) => events.push(`status ${String(status)}`),
      powerOff: () => events.push("off"),
      channelRang: () => events.push("ring"),
      snapshotPoint: () => events.push("snapshot"),
    };
    const timer = new BootTimer(host, 0xc010_0000);
    timer.write(BOOT_TIMER_MILESTONE, 1, 123);
    timer.write(BOOT_TIMER_EXIT_STATUS, 4, 0x1ff);
    timer.write(BOOT_TIMER_POWER_OFF, 4, 2);
    timer.write(0x800, 4, 1);
    timer.write(BOOT_TIMER_POWER_OFF, 4, 1);
    timer.write(BOOT_TIMER_CHANNEL, 4, 1);
    timer.write(BOOT_TIMER_SNAPSHOT, 4, 0);
    timer.write(BOOT_TIMER_SNAPSHOT, 4, 1);
    assert.deepEqual(events, ["milestone 123", "status 255", "off", "ring", "snapshot"]);
    assert.equal(timer.read(BOOT_TIMER_CHANNEL, 4), 0xc010_0000);
    assert.equal(new BootTimer(host, 0).read(BOOT_TIMER_CHANNEL, 4), 0);
    assert.equal(timer.read(BOOT_TIMER_MAGIC_REGISTER, 4), BOOT_TIMER_MAGIC);
    assert.equal(timer.read(BOOT_TIMER_MILESTONE, 1), 0);
  });
});
