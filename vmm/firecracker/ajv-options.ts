// How Ajv compiles the schemas, at build time and in tests. Its messages are not used: check-section.ts has words of its own.

export const AJV_OPTIONS = {
  strict: true,
  allowUnionTypes: true,
  messages: false,
  // Words for messages, which mean nothing to JSON Schema.
  keywords: ["x-expected", "x-unit"],
};
