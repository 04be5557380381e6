// Needs: Chromium for all but the first. The ladder's page in a real browser: nothing is loaded, nothing
// complains, every chart is drawn and can be read, on light and dark screens, on narrow ones and on paper.
import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { page, startSvg } from "../../bench/ladder/html/page.js";
import { findProgram } from "../../vmm/host/programs.js";
import { Chromium, type Media } from "../helpers/chromium.js";
import { madeUpResult } from "../helpers/ladder-result.js";
import { skip } from "../helpers/skip.js";

const CHARTS = 5;
/** WCAG 2.1, 1.4.3 and 1.4.11: text, and large text or shapes. */
const TEXT_CONTRAST = 4.5;
const SHAPE_CONTRAST = 3;

interface Seen {
  readonly width: number;
  readonly scrollWidth: number;
  readonly charts: readonly {
    readonly width: number;
    readonly height: number;
    readonly shapes: number;
    readonly texts: number;
  }[];
  /** Words with their contrast, where it is below the limit. */
  readonly pale: readonly string[];
  /** Words of one chart that lie on each other. */
  readonly overlapping: readonly string[];
  /** Words of a chart that stick out of it. */
  readonly cut: readonly string[];
}

/** Runs in the page. */
const LOOK = `(() => {
  const rgb = (text) => (text.match(/[\\d.]+/g) ?? []).map(Number);
  const luminance = (text) => {
    const [r, g, b] = rgb(text).map((v) => (v / 255 <= 0.03928 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const page = luminance(getComputedStyle(document.documentElement).backgroundColor);
  const contrast = (colour) => {
    const own = luminance(colour);
    return (Math.max(own, page) + 0.05) / (Math.min(own, page) + 0.05);
  };
  const pale = [], overlapping = [], cut = [], charts = [];
  for (const svg of document.querySelectorAll("svg")) {
    const frame = svg.getBoundingClientRect();
    const texts = [...svg.querySelectorAll("text")].filter((text) => text.textContent.trim() !== "");
    for (const text of texts) {
      const value = contrast(getComputedStyle(text).fill);
      if (value < ${String(TEXT_CONTRAST)}) pale.push(text.textContent + " " + value.toFixed(2));
    }
    const boxes = texts.map((text) => ({ text: text.textContent, box: text.getBoundingClientRect() }));
    boxes.forEach(({ text, box }, i) => {
      if (box.left < frame.left - 1 || box.right > frame.right + 1 || box.top < frame.top - 1 || box.bottom > frame.bottom + 1) cut.push(text);
      for (const other of boxes.slice(i + 1)) {
        const x = Math.min(box.right, other.box.right) - Math.max(box.left, other.box.left);
        const y = Math.min(box.bottom, other.box.bottom) - Math.max(box.top, other.box.top);
        // A pixel and a half of line height is air.
        if (x > 1 && y > 3) overlapping.push(text + " / " + other.text);
      }
    });
    const shapes = [...svg.querySelectorAll("path, rect, circle")].filter((shape) => {
      const { fill } = getComputedStyle(shape);
      const { width, height } = shape.getBoundingClientRect();
      return fill.startsWith("rgb") && width > 0.5 && height > 0.5 && contrast(fill) >= ${String(SHAPE_CONTRAST)};
    });
    charts.push({ width: frame.width, height: frame.height, shapes: shapes.length, texts: texts.length });
  }
  return { width: innerWidth, scrollWidth: document.documentElement.scrollWidth, charts, pale, overlapping, cut };
})()`;

describe("bench: ladder's page", function () {
  this.timeout(60_000);

  it("is one file: no script, nothing from elsewhere, what is strange is escaped", () => {
    const html = page(madeUpResult());
    assert.ok(!html.includes("<script"));
    assert.deepEqual(html.match(/(?:src|href)="(?!https:\/\/|data:,)[^"]*"/g), null);
    assert.ok(html.includes("what runc adds &amp; &lt;more&gt;"));
    assert.ok(html.includes("not here: firecracker is not installed"));
    assert.equal(html.match(/<svg /g)?.length, CHARTS);
    assert.match(startSvg(madeUpResult()), /^<svg [^>]*><style>/);
  });

  describe("in Chromium", () => {
    let chromium: Chromium | undefined;
    let folder = "";
    before(async function () {
      const path = findProgram("chromium") ?? findProgram("google-chrome");
      if (path === undefined) skip(this, "chromium is not installed");
      folder = mkdtempSync(join(tmpdir(), "vmlet-page-"));
      const file = join(folder, "ladder.html");
      writeFileSync(file, page(madeUpResult()));
      chromium = new Chromium(path);
      await chromium.open(`file://${file}`);
    });
    after(async () => {
      await chromium?.close();
      if (folder !== "") rmSync(folder, { recursive: true });
    });

    const media: readonly (readonly [string, Media])[] = [
      ["light screen", { kind: "screen", scheme: "light", width: 1280 }],
      ["dark screen", { kind: "screen", scheme: "dark", width: 1280 }],
      ["narrow screen", { kind: "screen", scheme: "dark", width: 390 }],
      ["paper, from a dark screen", { kind: "print", scheme: "dark", width: 700 }],
    ];
    for (const [name, how] of media) {
      it(`${name}: all charts are drawn and legible, and nothing is wider than the page`, async () => {
        assert.ok(chromium);
        await chromium.show(how);
        const seen = await chromium.evaluate<Seen>(LOOK);
        assert.equal(seen.charts.length, CHARTS);
        for (const { width, height, shapes, texts } of seen.charts) {
          assert.ok(width > 300 && height > 100, `${String(width)} x ${String(height)}`);
          assert.ok(shapes >= 5 && texts >= 10, `${String(shapes)} shapes, ${String(texts)} words`);
        }
        assert.deepEqual(seen.pale, []);
        assert.deepEqual(seen.cut, []);
        assert.deepEqual(seen.overlapping, []);
        assert.ok(seen.scrollWidth <= seen.width, `${String(seen.scrollWidth)} of ${String(seen.width)}`);
      });
    }

    it("paper is white, a dark screen dark", async () => {
      assert.ok(chromium);
      const background = `getComputedStyle(document.documentElement).backgroundColor`;
      await chromium.show({ kind: "screen", scheme: "dark", width: 1280 });
      assert.equal(await chromium.evaluate(background), "rgb(13, 17, 23)");
      await chromium.show({ kind: "print", scheme: "dark", width: 700 });
      assert.equal(await chromium.evaluate(background), "rgb(255, 255, 255)");
    });

    it("no error, no warning, nothing that could not be loaded", () => {
      assert.deepEqual(chromium?.complaints, []);
    });
  });
});
