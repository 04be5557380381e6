// Needs: nothing.
import assert from "node:assert/strict";
import { ACPI_PM_WORDS, AcpiPm, PM1_CNT, PM1_EN, PM_TMR, RESET_REG, SLP_EN } from "../../devices/legacy/acpi-pm.js";
import { BOOT_TIMER_CHANNEL } from "../../devices/pseudo/command-channel.js";
import { CmosRtc, RTC_DATA, RTC_INDEX } from "../../devices/legacy/cmos-rtc.js";
import { I8042, I8042_COMMAND, I8042_DATA } from "../../devices/legacy/i8042.js";
import {
  BOOT_TIMER_EXIT_STATUS,
  BOOT_TIMER_MAGIC,
  BOOT_TIMER_MAGIC_REGISTER,
  BOOT_TIMER_MILESTONE,
  BOOT_TIMER_POWER_OFF,
  BootTimer,
} from "../../devices/pseudo/boot-timer.js";

const words = (count: number) => new Int32Array(new SharedArrayBuffer(count * 4));

describe("i8042", () => {
  it("its status is always empty, so that no guest spins on it", () => {
    const device = new I8042(() => assert.fail("no reset was asked for"));
    assert.equal(device.read(I8042_COMMAND, 1), 0);
    device.write(I8042_DATA, 1, 0xfe);
    device.write(I8042_COMMAND, 1, 0xd1);
  });

  it("the reset command resets", () => {
    let resets = 0;
    new I8042(() => resets++).write(I8042_COMMAND, 1, 0xfe);
    assert.equal(resets, 1);
  });
});

describe("cmos-rtc", () => {
  const rtc = new CmosRtc(words(1), () => new Date("2039-12-31T23:58:07Z"));
  const register = (index: number): number => {
    rtc.write(RTC_INDEX, 1, index | 0x80);
    return rtc.read(RTC_DATA, 1);
  };

  it("shows UTC in BCD, century included", () => {
    assert.deepEqual([0x32, 9, 8, 7, 4, 2, 0].map(register), [0x20, 0x39, 0x12, 0x31, 0x23, 0x58, 0x07]);
    assert.equal(register(6), 7, "a Saturday");
  });

  it("is never in the middle of an update, and its battery is good", () => {
    assert.equal(register(0x0a) & 0x80, 0);
    assert.equal(register(0x0b), 0x02);
    assert.equal(register(0x0d), 0x80);
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

describe("boot-timer", () => {
  it("hands on milestones, the exit status and the power-off", () => {
    const events: string[] = [];
    const host = {
      milestone: (code: number) => events.push(`milestone ${String(code)}`),
      exitStatus: (status: number) => events.push(`status ${String(status)}`),
      powerOff: () => events.push("off"),
      channelRang: () => events.push("ring"),
    };
    const timer = new BootTimer(host, 0xc010_0000);
    timer.write(BOOT_TIMER_MILESTONE, 1, 123);
    timer.write(BOOT_TIMER_EXIT_STATUS, 4, 0x1ff);
    timer.write(BOOT_TIMER_POWER_OFF, 4, 2);
    timer.write(0x800, 4, 1);
    timer.write(BOOT_TIMER_POWER_OFF, 4, 1);
    timer.write(BOOT_TIMER_CHANNEL, 4, 1);
    assert.deepEqual(events, ["milestone 123", "status 255", "off", "ring"]);
    assert.equal(timer.read(BOOT_TIMER_CHANNEL, 4), 0xc010_0000);
    assert.equal(new BootTimer(host, 0).read(BOOT_TIMER_CHANNEL, 4), 0);
    assert.equal(timer.read(BOOT_TIMER_MAGIC_REGISTER, 4), BOOT_TIMER_MAGIC);
    assert.equal(timer.read(BOOT_TIMER_MILESTONE, 1), 0);
  });
});
