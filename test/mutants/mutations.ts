// Changes of one operator, of the kind that somebody makes by mistake: a comparison that is off by one,
// a sum for a difference, a condition the other way round.
import ts from "typescript";

export interface Mutation {
  /** Position in the text, and what stands there instead. */
  readonly start: number;
  readonly end: number;
  readonly replacement: string;
  /** From 1 on. */
  readonly line: number;
  /** As a person reads it: "< becomes <=". */
  readonly what: string;
  /** The innermost function around it that has a name, as V8 calls it; undefined outside all. */
  readonly functionName: string | undefined;
}

const BINARY: Readonly<Record<string, readonly string[]>> = {
  "<": ["<=", ">"],
  "<=": ["<", ">"],
  ">": [">=", "<"],
  ">=": [">", "<"],
  "===": ["!=="],
  "!==": ["==="],
  "&&": ["||"],
  "||": ["&&"],
  "??": ["&&"],
  "+": ["-"],
  "-": ["+"],
  "*": ["/"],
  "/": ["*"],
  "%": ["*"],
  "**": ["*"],
  "&": ["|"],
  "|": ["&"],
  "^": ["&"],
  "<<": [">>"],
  ">>": ["<<"],
  ">>>": ["<<"],
  "+=": ["-="],
  "-=": ["+="],
  "|=": ["&="],
  "&=": ["|="],
};

/** A prefix and what may stand there instead; nothing: it is left out. */
const PREFIX: Readonly<Record<string, string>> = { "!": "", "-": "", "~": "", "++": "--", "--": "++" };

/** All of a file's, in the order of its text. */
export function mutationsOf(text: string): Mutation[] {
  const source = ts.createSourceFile("source.ts", text, ts.ScriptTarget.ES2022, true);
  const found: Mutation[] = [];
  const add = (node: ts.Node, start: number, length: number, replacement: string): void => {
    const line = source.getLineAndCharacterOfPosition(start).line + 1;
    const original = text.slice(start, start + length);
    const what = replacement === "" ? `${original} is left out` : `${original} becomes ${replacement}`;
    found.push({ start, end: start + length, replacement, line, what, functionName: functionAround(node) });
  };
  const visit = (node: ts.Node): void => {
    if (ts.isTypeNode(node)) return;
    if (ts.isBinaryExpression(node)) {
      const { operatorToken } = node;
      const operator = operatorToken.getText(source);
      for (const replacement of BINARY[operator] ?? [])
        add(node, operatorToken.getStart(source), operator.length, replacement);
    } else if (ts.isPrefixUnaryExpression(node)) {
      const operator = ts.tokenToString(node.operator) ?? "";
      const replacement = PREFIX[operator];
      if (replacement !== undefined) add(node, node.getStart(source), operator.length, replacement);
    } else if (ts.isPostfixUnaryExpression(node)) {
      const operator = ts.tokenToString(node.operator) ?? "";
      add(node, node.end - operator.length, operator.length, PREFIX[operator] ?? operator);
    }
    ts.forEachChild(node, visit);
  };
  visit(source);
  return found.sort((a, b) => a.start - b.start);
}

function functionAround(node: ts.Node): string | undefined {
  for (let at = node.parent as ts.Node | undefined; at !== undefined; at = at.parent as ts.Node | undefined) {
    if (ts.isConstructorDeclaration(at)) return at.parent.name?.text ?? "";
    if (ts.isMethodDeclaration(at) || ts.isFunctionDeclaration(at)) return at.name?.getText() ?? "";
    if (ts.isGetAccessor(at)) return `get ${at.name.getText()}`;
    if (ts.isSetAccessor(at)) return `set ${at.name.getText()}`;
    if (!ts.isArrowFunction(at)) continue;
    const { parent } = at;
    if (ts.isVariableDeclaration(parent) || ts.isPropertyDeclaration(parent) || ts.isPropertyAssignment(parent)) {
      return parent.name.getText();
    }
  }
  return undefined;
}

export function mutate(text: string, { start, end, replacement }: Mutation): string {
  return text.slice(0, start) + replacement + text.slice(end);
}

/** As tsc compiles it, types unchecked. */
export function compile(text: string): string {
  const { outputText } = ts.transpileModule(text, {
    compilerOptions: { target: ts.ScriptTarget.ES2022, module: ts.ModuleKind.ESNext, verbatimModuleSyntax: true },
  });
  return outputText;
}
