/**
 * What went wrong. A call that its AbortSignal ended throws the signal's reason instead, as `fetch` does.
 *
 * status: of the answer; 401 if one has to log in again, 0 if there was no answer, or not a whole one.
 * type: the gateway's word, such as `rate_limit_exceeded`; this client's are `connection_error`,
 *   `key_derivation_refused` and `invalid_request`.
 * requestId: to quote to the gateway's operator; may be empty.
 * retryAfterSeconds: how long the gateway asks to wait, if it does.
 */
export class ProxyError extends Error {
  override readonly name = "ProxyError";

  constructor(
    readonly status: number,
    message: string,
    readonly type = "",
    readonly requestId = "",
    readonly retryAfterSeconds: number | null = null,
    options?: ErrorOptions,
  ) {
    super(message, options);
  }
}
