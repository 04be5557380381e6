// Requests that are answered once.
import type { AgentError, GuestRequestError } from "../errors.js";
import { abortReason } from "./abort.js";
import type { AgentConnection } from "./connection.js";
import { requestError } from "./guest-errors.js";
import type { AgentStream, StreamEvents, StreamRequest } from "./stream.js";

/** What every request of a caller may have. */
export interface RequestOptions {
  /** Gives the request up; it rejects with the signal's reason. */
  readonly signal?: AbortSignal | undefined;
}

/** What a request does besides its end. */
export type RequestEvents = Pick<StreamEvents, "onData" | "onEnd" | "onWritable">;

export interface PendingRequest<Answer> {
  readonly stream: AgentStream;
  /** Rejects with GuestRequestError, AgentError, or the reason of the signal. */
  readonly answer: Promise<Answer>;
}

/** Makes a request. `decode` throws AgentError for an answer that is none. */
export function makeRequest<Answer>(
  connection: AgentConnection,
  request: StreamRequest,
  decode: (payload: Buffer) => Answer,
  { signal }: RequestOptions = {},
  events: RequestEvents = {},
): PendingRequest<Answer> {
  signal?.throwIfAborted();
  let stream: AgentStream | undefined;
  const answer = new Promise<Answer>((resolve, reject) => {
    const onAbort = (): void => stream?.cancel();
    const fail = (error: AgentError | GuestRequestError): void => {
      signal?.removeEventListener("abort", onAbort);
      reject(signal?.aborted === true ? abortReason(signal) : error);
    };
    stream = connection.open(request, {
      ...events,
      onDone: (payload) => {
        const value = decode(payload);
        signal?.removeEventListener("abort", onAbort);
        if (signal?.aborted === true) reject(abortReason(signal));
        else resolve(value);
      },
      onRefused: (errno, text) => {
        fail(requestError(request.what, errno, text));
      },
      onLost: fail,
    });
    signal?.addEventListener("abort", onAbort, { once: true });
  });
  if (stream === undefined) throw new TypeError("A promise's executor runs at once");
  return { stream, answer };
}

/** A request without content. */
export function ask(
  connection: AgentConnection,
  type: number,
  payload: Uint8Array,
  what: string,
  options?: RequestOptions,
): Promise<void> {
  return makeRequest(connection, { type, payload, what, outputs: 0 }, () => undefined, options).answer;
}
