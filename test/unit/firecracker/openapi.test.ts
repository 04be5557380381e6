// Needs: nothing; dist/ for the comparison with what is published. The description of the API against the API: its structure, what
// is served by each path and method, its examples, its answers.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { METHODS as HTTP_METHODS } from "node:http";
import { Ajv2020, type ValidateFunction } from "ajv/dist/2020.js";
import { AJV_OPTIONS } from "../../../vmm/firecracker/ajv-options.js";
import { Fault } from "../../../vmm/firecracker/fault.js";
import { openApi } from "../../../vmm/firecracker/openapi.js";
import { parseRequest } from "../../../vmm/firecracker/requests.js";
import { FirecrackerRig } from "../../helpers/firecracker-rig.js";
import { skip } from "../../helpers/skip.js";

interface Content {
  readonly "application/json": { readonly schema: { readonly $ref: string }; readonly example?: unknown };
}

interface Operation {
  readonly operationId: string;
  readonly summary: string;
  readonly requestBody?: { readonly required: boolean; readonly content: Content };
  readonly responses: Readonly<Record<string, { readonly description: string; readonly content?: Content }>>;
}

interface Parameter {
  readonly name: string;
  readonly in: string;
  readonly required: boolean;
}

type PathItem = Readonly<Record<string, Operation>> & { readonly parameters?: readonly Parameter[] };

interface Description {
  readonly openapi: string;
  readonly info: { readonly title: string; readonly version: string };
  readonly paths: Readonly<Record<string, PathItem>>;
  readonly components: { readonly schemas: Readonly<Record<string, object>> };
}

const PUBLISHED = "dist/firecracker-openapi.json";
const METHODS = ["get", "put", "patch", "delete"];

describe("firecracker: the API's description", () => {
  // As a reader gets it.
  const description = JSON.parse(JSON.stringify(openApi())) as Description;
  const operations = Object.entries(description.paths).flatMap(([path, item]) =>
    Object.entries(item).flatMap(([method, operation]) =>
      method === "parameters" ? [] : [{ path, method, operation: operation as Operation }],
    ),
  );
  const ajv = new Ajv2020({ ...AJV_OPTIONS, keywords: [...AJV_OPTIONS.keywords, "example"] });

  function schemaOf({ "application/json": { schema } }: Content): { readonly required?: readonly string[] } {
    const name = /^#\/components\/schemas\/(\w+)$/.exec(schema.$ref)?.[1] ?? "";
    const found = description.components.schemas[name];
    assert.ok(found, schema.$ref);
    return found;
  }

  function validator(content: Content): ValidateFunction {
    return ajv.compile(schemaOf(content));
  }

  /** The path as a client would write it, for the body. */
  function filled(path: string, body: unknown): string {
    return path.replace(
      /\{(\w+)\}/,
      (_, key: string) => (body as Readonly<Record<string, string>> | undefined)?.[key] ?? "some_id",
    );
  }

  function bodyOf({ requestBody }: Operation): Buffer | undefined {
    const example = requestBody?.content["application/json"].example;
    return example === undefined ? undefined : Buffer.from(JSON.stringify(example));
  }

  it("is OpenAPI 3.1: parameters are the paths', ids are unique, every schema is one and is used", () => {
    assert.match(description.openapi, /^3\.1\.\d+$/);
    assert.ok(description.info.title !== "" && description.info.version !== "");
    for (const [path, { parameters = [], ...item }] of Object.entries(description.paths)) {
      const named = [...path.matchAll(/\{(\w+)\}/g)].map(([, name]) => name);
      assert.deepEqual(
        parameters.map(({ name, in: where, required }) => [name, where, required]),
        named.map((name) => [name, "path", true]),
        path,
      );
      assert.deepEqual(
        Object.keys(item).filter((key) => !METHODS.includes(key)),
        [],
        path,
      );
    }
    const ids = operations.map(({ operation }) => operation.operationId);
    assert.deepEqual([...new Set(ids)], ids);
    assert.ok(ids.every((id) => /^[a-z]\w*$/.test(id)));
    for (const schema of Object.values(description.components.schemas)) ajv.compile(schema);
    const text = JSON.stringify(description.paths);
    const unused = Object.keys(description.components.schemas).filter((name) => !text.includes(`/schemas/${name}"`));
    assert.deepEqual(unused, ["FullVmConfiguration"], "the configuration file is no body");
  });

  it("every path and method of it is served, and no other one of these paths", () => {
    assert.ok(operations.length > 40);
    const unknown = /^Invalid request method and\/or path/;
    for (const path of Object.keys(description.paths)) {
      for (const method of HTTP_METHODS) {
        const described = operations.find((one) => one.path === path && one.method === method.toLowerCase());
        const body = described === undefined ? Buffer.from("{}") : bodyOf(described.operation);
        const example = described?.operation.requestBody?.content["application/json"].example;
        const call = (): unknown =>
          parseRequest(method, filled(path, example), method === "GET" || method === "DELETE" ? undefined : body);
        // As in Firecracker, further parts of a path are not looked at everywhere: GET /mmds/config is GET /mmds.
        const isShorter = (one: { path: string; method: string }): boolean =>
          one.method === method.toLowerCase() && path.startsWith(`${one.path}/`);
        if (described !== undefined) assert.doesNotThrow(call, `${method} ${path}`);
        else if (!operations.some(isShorter))
          assert.throws(call, (error) => error instanceof Fault && error.status === 400, `${method} ${path}`);
      }
    }
    assert.throws(() => parseRequest("PUT", "/nothing", Buffer.from("{}")), { message: unknown });
  });

  it("every body has an example, which is valid; without a field that it needs, or with one more, it is refused", () => {
    for (const { path, method, operation } of operations) {
      const where = `${method} ${path}`;
      const { requestBody } = operation;
      if (requestBody === undefined) continue;
      const example = requestBody.content["application/json"].example as Readonly<Record<string, unknown>>;
      const validate = validator(requestBody.content);
      assert.ok(validate(example), `${where}: ${JSON.stringify(validate.errors)}`);
      if (requestBody.content["application/json"].schema.$ref.endsWith("/MmdsContents")) continue;
      const target = filled(path, example);
      const refused = (body: object): void => {
        assert.throws(
          () => parseRequest(method.toUpperCase(), target, Buffer.from(JSON.stringify(body))),
          Fault,
          where,
        );
        assert.equal(validate(body), false, where);
      };
      refused({ ...example, no_such_field: 1 });
      const { required = [] } = schemaOf(requestBody.content);
      for (const key of required) {
        refused(Object.fromEntries(Object.entries(example).filter(([name]) => name !== key)));
      }
    }
  });

  it("answers and faults are as it says", async () => {
    const rig = new FirecrackerRig();
    try {
      await rig.done("PUT", "/balloon", { amount_mib: 0, deflate_on_oom: true });
      let answered = 0;
      for (const { path, method, operation } of operations) {
        if (method !== "get") continue;
        const { status, body, fault } = await rig.ask("GET", path);
        const response = operation.responses[String(status)];
        assert.ok(response, `GET ${path}: ${String(status)}`);
        const text = fault === undefined ? (body ?? {}) : { fault_message: fault };
        const validate = validator(response.content ?? assert.fail(path));
        assert.ok(validate(JSON.parse(JSON.stringify(text))), `GET ${path}: ${JSON.stringify(validate.errors)}`);
        if (status === 200) answered++;
      }
      assert.equal(answered, 6);
    } finally {
      rig.close();
    }
  });

  it("is published with the package as it is here", function () {
    if (!existsSync(PUBLISHED)) skip(this, "dist/ is not built");
    assert.deepEqual(JSON.parse(readFileSync(PUBLISHED, "utf8")), description);
    const listed = execFileSync("npm", ["pack", "--dry-run", "--json", "--ignore-scripts"], {
      encoding: "utf8",
      timeout: 60_000,
      stdio: ["ignore", "pipe", "ignore"],
    });
    const [{ files } = { files: [] }] = JSON.parse(listed) as {
      readonly files: readonly { readonly path: string }[];
    }[];
    assert.ok(files.some(({ path }) => path === PUBLISHED));
  }).timeout(60_000);
});
