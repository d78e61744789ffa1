// Client of the OpenRouter proxy: derives the access key on this device, registers, logs in, stays logged in and chats.

export { ProxyClient } from "./client.js";
export type { CallOptions, ClientOptions, Pin } from "./client.js";
export { DEFAULT_PARAMETERS, deriveKey } from "./derive.js";
export type { KdfParameters } from "./derive.js";
export { ProxyError } from "./errors.js";
export type * from "./types.js";
