export function doctor(_argv: readonly string[]): number { return 0; }
