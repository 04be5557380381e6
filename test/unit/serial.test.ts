// Needs: nothing.
import assert from "node:assert/strict";
import {
  Serial,
  UART_DLL,
  UART_FCR,
  UART_FCR_CLEAR_RCVR,
  UART_FCR_ENABLE_FIFO,
  UART_IER,
  UART_IER_RDI,
  UART_IER_RLSI,
  UART_IER_THRI,
  UART_IIR,
  UART_IIR_NO_INT,
  UART_IIR_RDI,
  UART_IIR_RLSI,
  UART_IIR_THRI,
  UART_LCR,
  UART_LCR_DLAB,
  UART_LSR,
  UART_LSR_BI,
  UART_LSR_DR,
  UART_LSR_TEMT,
  UART_LSR_THRE,
  UART_MCR,
  UART_MCR_LOOP,
  UART_MSR,
  UART_RX,
  UART_SCR,
  UART_TX,
} from "../../devices/legacy/serial.js";
import { SERIAL_WORDS } from "../../devices/legacy/serial-words.js";

function port() {
  const sent: number[] = [];
  const count = { interrupts: 0, room: 0 };
  const words = new Int32Array(new SharedArrayBuffer(SERIAL_WORDS * 4));
  const make = () =>
    new Serial(
      words,
      { trigger: () => count.interrupts++ },
      {
        transmit: (byte) => sent.push(byte),
        roomAvailable: () => count.room++,
      },
    );
  return { serial: make(), other: make(), sent, count };
}

describe("serial", () => {
  it("a fresh port is idle: transmitter empty, nothing received, no interrupt", () => {
    const { serial } = port();
    assert.equal(serial.read(UART_LSR, 1), UART_LSR_THRE | UART_LSR_TEMT);
    assert.equal(serial.read(UART_IIR, 1), UART_IIR_NO_INT);
    assert.equal(serial.read(UART_RX, 1), 0);
  });

  it("sends bytes in order, and the divisor latch is not the transmitter", () => {
    const { serial, sent } = port();
    serial.write(UART_TX, 1, 0x41);
    serial.write(UART_LCR, 1, UART_LCR_DLAB | 3);
    serial.write(UART_DLL, 1, 0x0c);
    assert.equal(serial.read(UART_DLL, 1), 0x0c);
    serial.write(UART_LCR, 1, 3);
    serial.write(UART_TX, 1, 0x42);
    assert.deepEqual(sent, [0x41, 0x42]);
    assert.equal(serial.read(UART_LCR, 1), 3);
  });

  it("enabling THRI raises it once; reading IIR answers it; the next byte raises it again", () => {
    const { serial, count } = port();
    serial.write(UART_IER, 1, UART_IER_THRI);
    assert.equal(count.interrupts, 1);
    assert.equal(serial.read(UART_IIR, 1), UART_IIR_THRI);
    assert.equal(serial.read(UART_IIR, 1), UART_IIR_NO_INT);
    serial.write(UART_TX, 1, 1);
    assert.equal(count.interrupts, 2);
    serial.write(UART_TX, 1, 2);
    assert.equal(count.interrupts, 2, "the pin was up already");
  });

  it("received bytes are announced, read in order, and outrank the transmitter", () => {
    const { serial, count } = port();
    serial.write(UART_IER, 1, UART_IER_RDI | UART_IER_THRI);
    assert.equal(serial.receive(Uint8Array.of(7, 8, 9)), 3);
    assert.equal(serial.read(UART_IIR, 1), UART_IIR_RDI);
    assert.ok((serial.read(UART_LSR, 1) & UART_LSR_DR) !== 0);
    assert.deepEqual(
      [0, 0, 0].map(() => serial.read(UART_RX, 1)),
      [7, 8, 9],
    );
    assert.equal(serial.read(UART_LSR, 1) & UART_LSR_DR, 0);
    assert.equal(serial.read(UART_IIR, 1), UART_IIR_THRI);
    assert.equal(count.interrupts, 2, "one for the transmitter, one for the input");
  });

  it("each interrupt comes only where it is enabled", () => {
    const { serial } = port();
    serial.receive(Uint8Array.of(0x61));
    for (const enabled of [0, UART_IER_THRI]) {
      serial.write(UART_IER, 1, enabled);
      assert.equal(serial.read(UART_IIR, 1), enabled === 0 ? UART_IIR_NO_INT : UART_IIR_THRI);
    }
    serial.write(UART_IER, 1, UART_IER_RDI);
    assert.equal(serial.read(UART_IIR, 1), UART_IIR_RDI);
  });

  it("back-pressure: takes what fits, and says once when there is room again", () => {
    const { serial, count } = port();
    const flood = Uint8Array.from({ length: 1000 }, (_, i) => i & 0xff);
    const taken = serial.receive(flood);
    assert.equal(taken, 256);
    assert.equal(serial.receive(flood), 0);
    const seen: number[] = [];
    for (let i = 0; i < 127; i++) seen.push(serial.read(UART_RX, 1));
    assert.equal(count.room, 0);
    seen.push(serial.read(UART_RX, 1));
    assert.equal(count.room, 1);
    for (let i = 0; i < 128; i++) seen.push(serial.read(UART_RX, 1));
    assert.equal(count.room, 1);
    assert.deepEqual(seen, [...flood.subarray(0, 256)]);
  });

  it("a break is a status, an interrupt of its own and a zero byte", () => {
    const { serial } = port();
    serial.write(UART_IER, 1, UART_IER_RDI | UART_IER_RLSI);
    serial.receiveBreak();
    serial.receive(Uint8Array.of(0x63));
    assert.equal(serial.read(UART_IIR, 1), UART_IIR_RLSI);
    assert.equal(serial.read(UART_LSR, 1) & UART_LSR_BI, UART_LSR_BI);
    assert.equal(serial.read(UART_LSR, 1) & UART_LSR_BI, 0);
    assert.equal(serial.read(UART_RX, 1), 0);
    assert.equal(serial.read(UART_RX, 1), 0x63);
  });

  it("FIFO control: IIR tells that it is on, and it can be cleared", () => {
    const { serial } = port();
    serial.write(UART_IER, 1, UART_IER_RDI);
    serial.write(UART_FCR, 1, UART_FCR_ENABLE_FIFO);
    assert.equal(serial.read(UART_IIR, 1), 0xc0 | UART_IIR_NO_INT);
    serial.receive(Uint8Array.of(1, 2));
    serial.write(UART_FCR, 1, UART_FCR_ENABLE_FIFO | UART_FCR_CLEAR_RCVR);
    assert.equal(serial.read(UART_LSR, 1) & UART_LSR_DR, 0);
  });

  it("clearing the receiver asks for input that was refused", () => {
    const { serial, count } = port();
    serial.write(UART_IER, 1, UART_IER_RDI);
    assert.equal(serial.receive(new Uint8Array(300)), 256);
    serial.write(UART_FCR, 1, UART_FCR_ENABLE_FIFO | UART_FCR_CLEAR_RCVR);
    assert.deepEqual([count.room, serial.receive(Uint8Array.of(7)), serial.read(UART_RX, 1)], [1, 1, 7]);
  });

  it("input that comes before the driver opens the port is there afterwards, all of it", () => {
    const { serial } = port();
    const early = Uint8Array.from({ length: 300 }, (_, i) => i & 0xff);
    let sent = serial.receive(early);
    // As Linux's serial8250_do_startup does.
    serial.write(UART_FCR, 1, UART_FCR_ENABLE_FIFO);
    serial.write(UART_FCR, 1, UART_FCR_ENABLE_FIFO | UART_FCR_CLEAR_RCVR);
    serial.write(UART_FCR, 1, 0);
    assert.equal(serial.read(UART_LSR, 1) & UART_LSR_DR, 0);
    assert.equal(serial.read(UART_RX, 1), 0);
    assert.equal(serial.read(UART_IIR, 1), UART_IIR_NO_INT);
    serial.write(UART_IER, 1, UART_IER_RDI | UART_IER_RLSI);
    const seen: number[] = [];
    while ((serial.read(UART_LSR, 1) & UART_LSR_DR) !== 0) {
      seen.push(serial.read(UART_RX, 1));
      sent += serial.receive(early.subarray(sent));
    }
    assert.deepEqual(seen, [...early]);
  });

  it("a driver that polls sees what came before it cleared the receiver", () => {
    const { serial } = port();
    serial.receive(Uint8Array.of(9));
    serial.write(UART_FCR, 1, UART_FCR_ENABLE_FIFO | UART_FCR_CLEAR_RCVR);
    let looks = 0;
    while ((serial.read(UART_LSR, 1) & UART_LSR_DR) === 0 && looks < 1000) looks++;
    assert.equal(serial.read(UART_RX, 1), 9);
  });

  it("a driver that gives up in the middle of endless input is brought back by an edge", () => {
    const limit = 512;
    const words = new Int32Array(new SharedArrayBuffer(SERIAL_WORDS * 4));
    let edges = 0;
    let left = 400_000;
    const refill = (): void => {
      while (left > 0) {
        const taken = serial.receive(new Uint8Array(Math.min(left, 1000)));
        left -= taken;
        if (taken < 1000) return;
      }
    };
    const serial: Serial = new Serial(
      words,
      { trigger: () => edges++ },
      { transmit: () => undefined, roomAvailable: refill },
    );
    serial.write(UART_IER, 1, UART_IER_RDI);
    refill();
    let seen = 0;
    // Linux's serial8250_interrupt: up to 256 bytes a pass, and so many passes at most.
    while (edges > 0) {
      edges = 0;
      for (let pass = 0; pass < limit && (serial.read(UART_IIR, 1) & UART_IIR_NO_INT) === 0; pass++) {
        for (let i = 0; i < 256 && (serial.read(UART_LSR, 1) & UART_LSR_DR) !== 0; i++) {
          serial.read(UART_RX, 1);
          seen++;
        }
      }
    }
    assert.equal(seen, 400_000);
  });

  it("the interrupt line is touched with the port's lock free", () => {
    const words = new Int32Array(new SharedArrayBuffer(SERIAL_WORDS * 4));
    const held: number[] = [];
    const serial = new Serial(
      words,
      { trigger: () => held.push(words[0] ?? -1) },
      { transmit: () => undefined, roomAvailable: () => held.push(words[0] ?? -1) },
    );
    serial.write(UART_IER, 1, UART_IER_RDI | UART_IER_THRI | UART_IER_RLSI);
    serial.read(UART_IIR, 1);
    serial.receive(new Uint8Array(300));
    serial.receiveBreak();
    for (let i = 0; i < 300; i++) serial.read(UART_RX, 1);
    serial.write(UART_TX, 1, 1);
    assert.ok(held.length >= 3);
    assert.deepEqual(new Set(held), new Set([0]));
  });

  it("loop-back sends to itself and mirrors the modem lines", () => {
    const { serial, sent } = port();
    serial.write(UART_MCR, 1, UART_MCR_LOOP | 0x0a);
    assert.equal(serial.read(UART_MSR, 1) & 0xf0, 0x90);
    // DTR, RTS, OUT1, OUT2 as DSR, CTS, RI, DCD.
    for (const [line, status] of [
      [0x01, 0x20],
      [0x02, 0x10],
      [0x04, 0x40],
      [0x08, 0x80],
    ] as const) {
      serial.write(UART_MCR, 1, UART_MCR_LOOP | line);
      assert.equal(serial.read(UART_MSR, 1) & 0xf0, status);
    }
    serial.write(UART_TX, 1, 0x55);
    assert.equal(serial.read(UART_RX, 1), 0x55);
    assert.deepEqual(sent, []);
  });

  it("only the writable bits of IER and MCR are kept", () => {
    const { serial } = port();
    serial.write(UART_IER, 1, 0xff);
    serial.write(UART_MCR, 1, 0xff);
    serial.write(UART_SCR, 1, 0xa5);
    assert.equal(serial.read(UART_IER, 1), 0x0f);
    assert.equal(serial.read(UART_MCR, 1), 0x1f);
    assert.equal(serial.read(UART_SCR, 1), 0xa5);
  });

  it("two threads' objects over the same words are one port", () => {
    const { serial, other } = port();
    serial.write(UART_IER, 1, UART_IER_RDI);
    other.receive(Uint8Array.of(5));
    assert.equal(serial.read(UART_IIR, 1), UART_IIR_RDI);
    assert.equal(serial.read(UART_RX, 1), 5);
    assert.equal(other.read(UART_IIR, 1), UART_IIR_NO_INT);
  });

  it("any write at any register leaves a port that answers", () => {
    const { serial } = port();
    let seed = 12345;
    const random = (limit: number): number => {
      seed = (Math.imul(seed, 1103515245) + 12345) >>> 0;
      return (seed >>> 8) % limit;
    };
    for (let i = 0; i < 20_000; i++) {
      if (random(2) === 0) serial.write(random(8), 1, random(256));
      else {
        const value = serial.read(random(8), 1);
        assert.ok(value >= 0 && value <= 0xff);
      }
      if (random(16) === 0) serial.receive(new Uint8Array(random(64)));
    }
  });
});
