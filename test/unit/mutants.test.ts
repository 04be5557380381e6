// Needs: nothing. What `make mutants` changes, and which function it says a change is in.
import assert from "node:assert/strict";
import { compile, mutate, mutationsOf } from "../mutants/mutations.js";

describe("mutants", () => {
  const all = (text: string): string[] => mutationsOf(text).map((mutation) => mutate(text, mutation));

  it("one operator at a time, comparisons in two ways", () => {
    assert.deepEqual(all("a < b && !c;"), ["a <= b && !c;", "a > b && !c;", "a < b || !c;", "a < b && c;"]);
    assert.deepEqual(all("x += -y >>> 1; i++; --j;"), [
      "x -= -y >>> 1; i++; --j;",
      "x += y >>> 1; i++; --j;",
      "x += -y << 1; i++; --j;",
      "x += -y >>> 1; i--; --j;",
      "x += -y >>> 1; i++; ++j;",
    ]);
  });

  it("leaves types, strings, comments and assignments alone", () => {
    assert.deepEqual(all('type T = A | B; const x: -1 | "a < b" = y as C & D; // a < b'), []);
  });

  it("says where a change is: the line and the function that V8 counts the calls of", () => {
    const text = `const outside = 1 + 2;
class Box { constructor() { this.a = 1 - 1; } #size() { return [1].map((n) => n * 2); } get room() { return 1 / 2; } }
const arrow = () => 1 % 2;
function named() { return 1 | 2; }`;
    assert.deepEqual(
      mutationsOf(text).map(({ line, functionName, what }) => [line, functionName, what]),
      [
        [1, undefined, "+ becomes -"],
        [2, "Box", "- becomes +"],
        [2, "#size", "* becomes /"],
        [2, "get room", "/ becomes *"],
        [3, "arrow", "% becomes *"],
        [4, "named", "| becomes &"],
      ],
    );
  });

  it("compiles to what runs", async () => {
    const compiled = compile("export const five: number = 2 + 3;");
    const module = (await import(`data:text/javascript,${encodeURIComponent(compiled)}`)) as { five: number };
    assert.equal(module.five, 5);
  });
});
