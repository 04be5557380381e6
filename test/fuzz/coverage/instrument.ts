// Compiled JavaScript that counts where it goes and tells what it compares: what a fuzzer is guided by. The text is changed
// in place, line for line, so that stack traces still fit.
import ts from "typescript";

/** Names that no module here has. */
const COUNTERS = "__fuzzCounters";
const LEFT = "__fuzzLeft";
const RIGHT = "__fuzzRight";
const SUBJECT = "__fuzzSubject";
const CASE = "__fuzzCase";

const COMPARISONS: ReadonlySet<ts.SyntaxKind> = new Set([
  ts.SyntaxKind.EqualsEqualsEqualsToken,
  ts.SyntaxKind.ExclamationEqualsEqualsToken,
  ts.SyntaxKind.LessThanToken,
  ts.SyntaxKind.LessThanEqualsToken,
  ts.SyntaxKind.GreaterThanToken,
  ts.SyntaxKind.GreaterThanEqualsToken,
]);
const SHORT_CIRCUITS: ReadonlySet<ts.SyntaxKind> = new Set([
  ts.SyntaxKind.AmpersandAmpersandToken,
  ts.SyntaxKind.BarBarToken,
  ts.SyntaxKind.QuestionQuestionToken,
]);

/** What is put into the text, by place. */
class Insertions {
  readonly #opening = new Map<number, string>();
  readonly #closing = new Map<number, string>();

  /** In the order of calls, the outer node's before the inner one's. */
  before(position: number, text: string): void {
    this.#opening.set(position, (this.#opening.get(position) ?? "") + text);
  }

  /** The inner node's before the outer one's. */
  after(position: number, text: string): void {
    this.#closing.set(position, text + (this.#closing.get(position) ?? ""));
  }

  around(node: ts.Node, open: string, close: string): void {
    this.before(node.getStart(), open);
    this.after(node.getEnd(), close);
  }

  apply(source: string): string {
    const places = [...new Set([...this.#opening.keys(), ...this.#closing.keys()])].sort((a, b) => a - b);
    let made = "";
    let done = 0;
    for (const place of places) {
      made += source.slice(done, place) + (this.#closing.get(place) ?? "") + (this.#opening.get(place) ?? "");
      done = place;
    }
    return made + source.slice(done);
  }
}

/** Evaluating it does nothing else, so that it stays the one compared with what was kept last. */
function isPlain(node: ts.Expression): boolean {
  return (
    ts.isIdentifier(node) ||
    ts.isLiteralExpression(node) ||
    (ts.isPropertyAccessExpression(node) && isPlain(node.expression)) ||
    (ts.isPrefixUnaryExpression(node) && isPlain(node.operand)) ||
    (ts.isParenthesizedExpression(node) && isPlain(node.expression)) ||
    (ts.isBinaryExpression(node) && isPlain(node.left) && isPlain(node.right))
  );
}

/** A body or branch that may stand alone. */
function bodiesOf(node: ts.Node): readonly (ts.Statement | undefined)[] {
  if (ts.isIfStatement(node)) return [node.thenStatement, node.elseStatement];
  if (ts.isIterationStatement(node, false)) return [node.statement];
  return [];
}

/** The module `source` with counters and comparisons, which `probe.ts` gives it under the name `file`. */
export function instrument(source: string, file: string): string {
  const tree = ts.createSourceFile(file, source, ts.ScriptTarget.ES2022, true, ts.ScriptKind.JS);
  const insertions = new Insertions();
  let count = 0;
  const bump = (): string => `${COUNTERS}[${String(count++)}]++`;

  const branch = (node: ts.Expression): void => {
    insertions.around(node, `(${bump()},`, ")");
  };
  const visit = (node: ts.Node): void => {
    // What was not so is something reached, too; before the bodies, whose ends are at the same place.
    if (ts.isIfStatement(node) && node.elseStatement === undefined)
      insertions.after(node.getEnd(), ` else{${bump()};}`);
    for (const body of bodiesOf(node)) {
      // An "else if" counts where its own branches do.
      if (body === undefined || (ts.isIfStatement(body) && ts.isIfStatement(node) && node.elseStatement === body))
        continue;
      if (ts.isBlock(body)) insertions.before(body.getStart() + 1, `${bump()};`);
      else insertions.around(body, `{${bump()};`, "}");
    }
    if (ts.isFunctionLike(node) && "body" in node && node.body !== undefined) {
      const { body } = node;
      if (ts.isBlock(body)) insertions.before(body.getStart() + 1, `${bump()};`);
      else branch(body);
    } else if (ts.isConditionalExpression(node)) {
      branch(node.whenTrue);
      branch(node.whenFalse);
    } else if (ts.isBinaryExpression(node)) {
      const operator = node.operatorToken.kind;
      if (SHORT_CIRCUITS.has(operator)) branch(node.right);
      else if (COMPARISONS.has(operator) && isPlain(node.right)) {
        insertions.around(node.left, `${LEFT}(`, ")");
        insertions.around(node.right, `${RIGHT}(`, ")");
      }
    } else if (ts.isSwitchStatement(node)) insertions.around(node.expression, `${SUBJECT}(`, ")");
    else if (ts.isCaseOrDefaultClause(node)) {
      if (ts.isCaseClause(node)) insertions.around(node.expression, `${CASE}(`, ")");
      const [first] = node.statements;
      if (first !== undefined) insertions.before(first.getStart(), `${bump()};`);
    } else if (ts.isCatchClause(node)) insertions.before(node.block.getStart() + 1, `${bump()};`);
    ts.forEachChild(node, visit);
  };
  visit(tree);
  const head = `const {counters:${COUNTERS},left:${LEFT},right:${RIGHT},subject:${SUBJECT},case:${CASE}}=globalThis.fuzzProbe(${JSON.stringify(file)},${String(count)});`;
  return head + insertions.apply(source);
}
