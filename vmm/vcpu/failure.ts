// An error on its way from a vCPU's thread to the VM's owner, who gets one of the same class: an error
// that is posted to another thread loses its class.
import { ERROR_CODES, HostError, KvmIoctlError, SystemCallError, VcpuExitError, VmmError } from "../errors.js";
import type { VcpuFailure } from "./messages.js";

export function describeFailure(error: unknown): VcpuFailure {
  const stack = error instanceof Error ? error.stack : undefined;
  if (!(error instanceof VmmError)) return { code: "BUG", message: String(error), cure: undefined, stack };
  const { code, message, cure } = error;
  if (!(error instanceof SystemCallError)) return { code, message, cure, stack };
  const { request, errno, errnoName } = error;
  return { code, message, cure, stack, call: { request, errno, errnoName } };
}

/** What a thread dies of outside our code, as Node tells it: with the properties of the error, without its class. */
export function failureOfThread(error: Error): VcpuFailure {
  const { code, cure } = error as { code?: unknown; cure?: unknown };
  const known = ERROR_CODES.find((one) => one === code);
  return {
    code: known ?? "BUG",
    message: known === undefined ? String(error) : error.message,
    cure: typeof cure === "string" ? cure : undefined,
    stack: error.stack,
  };
}

export function errorOfFailure({ code, message, cure, stack, call }: VcpuFailure): Error {
  if (call !== undefined) {
    const Class = code === "ERR_KVM_IOCTL" ? KvmIoctlError : SystemCallError;
    return new Class(call.request, call.errno, call.errnoName, cure);
  }
  if (code === "ERR_VCPU_EXIT") return new VcpuExitError(message, { cure });
  if (code === "ERR_HOST") return new HostError(message, { cure });
  const error = code === "BUG" ? new Error(message) : new VmmError(code, message, { cure });
  if (stack !== undefined) error.stack = stack;
  return error;
}
