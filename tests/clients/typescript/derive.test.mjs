// The key that stands in for the password is the one that every other client derives.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { DEFAULT_PARAMETERS, ProxyError, deriveKey } from "../../../clients/typescript/dist/index.js";

const { vectors } = JSON.parse(readFileSync(new URL("../kdf_vectors.json", import.meta.url), "utf8"));

for (const { domain, email, password, derived_key } of vectors) {
  test(`vector: ${domain}, ${email}, ${password}`, async () => {
    assert.equal(await deriveKey(email, password, { ...DEFAULT_PARAMETERS, domain }), derived_key);
    if (domain === DEFAULT_PARAMETERS.domain) assert.equal(await deriveKey(email, password), derived_key);
  });
}

test("some vector has emoji among the first characters of a longer password", () => {
  assert.ok(vectors.some(({ password }) => password.startsWith("🔑") && [...password].length > 6));
});

for (const change of [
  { time_cost: 1 },
  { memory_kib: 1952 },
  { memory_kib: "1953" },
  { memory_kib: 2 ** 40 },
  { parallelism: 0 },
  { parallelism: true },
  { hash_len: 63 },
  { algorithm: "argon2i" },
  { encoding: "hex" },
  { length: 32 },
  { salt: null },
  { salt: { ...DEFAULT_PARAMETERS.salt, password_prefix_characters: 60 } },
  { domain: "" },
  { domain: null },
]) {
  test(`what would weaken or change the key is refused: ${JSON.stringify(change)}`, async () => {
    const [name] = Object.keys(change);
    await assert.rejects(deriveKey("user", "password", { ...DEFAULT_PARAMETERS, ...change }), (problem) => {
      assert.ok(problem instanceof ProxyError && problem.type === "key_derivation_refused");
      return problem.message.startsWith(name);
    });
  });
}

for (const [username, password, reason] of [
  ["user", "secret-\ud83d", "the password is not valid Unicode"],
  ["us\udd11er", "secret-1", "the username is not valid Unicode"],
  ["user", "", "the password is empty"],
  ["", "secret-1", "the username is empty"],
]) {
  test(`texts without a key: ${reason}`, async () => {
    await assert.rejects(deriveKey(username, password), { name: "ProxyError", message: reason });
  });
}
