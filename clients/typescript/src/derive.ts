// Derives the key that stands in for the password, so that the password never leaves this device.

import { argon2id, createBLAKE2b } from "hash-wasm";
import { ProxyError } from "./errors.js";

/** What `GET /api/auth/kdf` publishes. */
export interface KdfParameters {
  readonly algorithm: "argon2id";
  readonly time_cost: number;
  readonly memory_kib: number;
  readonly parallelism: number;
  readonly hash_len: number;
  readonly salt: {
    readonly algorithm: "blake2b";
    readonly digest_bytes: 16;
    readonly password_prefix_characters: 6;
  };
  readonly encoding: "base64url";
  readonly length: 64;
  readonly domain: string;
}

export const DEFAULT_PARAMETERS: KdfParameters = {
  algorithm: "argon2id",
  time_cost: 2,
  memory_kib: 1953,
  parallelism: 1,
  hash_len: 64,
  salt: { algorithm: "blake2b", digest_bytes: 16, password_prefix_characters: 6 },
  encoding: "base64url",
  length: 64,
  domain: "openrouter-proxy-access-key-v1",
};

const FIXED = [
  "algorithm",
  "salt.algorithm",
  "salt.digest_bytes",
  "salt.password_prefix_characters",
  "encoding",
  "length",
];

// The lower bound keeps a malicious server from asking for a key that is cheap to guess the password from,
// the upper one from exhausting this machine.
const ACCEPTED_RANGES = {
  time_cost: [2, 64],
  memory_kib: [1953, 1024 * 1024],
  parallelism: [1, 16],
  hash_len: [64, 1024],
} as const;

/** The 64 characters that stand in for the password. Throws ProxyError for weaker parameters and texts without a key. */
export async function deriveKey(
  username: string,
  password: string,
  parameters: KdfParameters = DEFAULT_PARAMETERS,
): Promise<string> {
  const { time_cost, memory_kib, parallelism, hash_len, salt, length, domain } = checkedParameters(parameters);
  // Characters are code points; slicing the string itself would cut emoji in half.
  const passwordStart = [...password].slice(0, salt.password_prefix_characters).join("");
  // hash-wasm wants the digest's size in bits.
  const saltHash = (await createBLAKE2b(salt.digest_bytes * 8)).init();
  saltHash.update(encoded(passwordStart, "password"));
  saltHash.update(encoded(username, "username"));
  saltHash.update(encoded(domain, "domain"));
  const rawKey = await argon2id({
    password: encoded(password, "password"),
    salt: saltHash.digest("binary"),
    iterations: time_cost,
    memorySize: memory_kib,
    parallelism,
    hashLength: hash_len,
    outputType: "binary",
  });
  const base64 = btoa(String.fromCharCode(...rawKey));
  return base64.replaceAll("+", "-").replaceAll("/", "_").slice(0, length);
}

/** The parameters, if a key may be derived with them. Throws ProxyError. */
export function checkedParameters(parameters: unknown): KdfParameters {
  for (const path of FIXED) {
    const [value, expected] = [at(parameters, path), at(DEFAULT_PARAMETERS, path)];
    if (value !== expected) throw refused(`${path} must be ${String(expected)}, not ${String(value)}`);
  }
  for (const [name, [lowest, highest]] of Object.entries(ACCEPTED_RANGES)) {
    const value = at(parameters, name);
    if (typeof value !== "number" || !Number.isInteger(value) || value < lowest || value > highest) {
      throw refused(`${name} must be a whole number from ${lowest} to ${highest}, not ${String(value)}`);
    }
  }
  const domain = at(parameters, "domain");
  if (typeof domain !== "string" || !domain) throw refused("domain must be a text that is not empty");
  return parameters as KdfParameters;
}

function at(value: unknown, path: string): unknown {
  const field = (part: unknown, name: string): unknown => (part as Record<string, unknown> | null | undefined)?.[name];
  return path.split(".").reduce(field, value);
}

function encoded(text: string, what: string): Uint8Array {
  // TextEncoder would replace half an emoji without a word, and other clients would derive another key.
  if (/\p{Surrogate}/u.test(text)) throw refused(`the ${what} is not valid Unicode`);
  if (!text) throw refused(`the ${what} is empty`);
  return new TextEncoder().encode(text);
}

/** What is thrown where no key may be derived. */
export function refused(message: string): ProxyError {
  return new ProxyError(0, message, "key_derivation_refused");
}
