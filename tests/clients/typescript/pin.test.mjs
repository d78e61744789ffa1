// What a gateway may ask of a key: its own domain, as at the sign-up, and no key without TLS to a public name.
import assert from "node:assert/strict";
import { test } from "node:test";
import { DEFAULT_PARAMETERS, ProxyClient } from "../../../clients/typescript/dist/index.js";
import { failure, serve } from "./scripted.mjs";

const FOREIGN = { ...DEFAULT_PARAMETERS, domain: "novelai_data_access_key" };

async function isRefused(gateway, options) {
  const problem = await failure(new ProxyClient(gateway.url, options).login("bob@example.com", "hunter2"));
  assert.deepEqual(new Set(gateway.paths()), new Set(["/api/auth/kdf"]));
  return problem.type === "key_derivation_refused" && problem.message;
}

test("another service's domain is taken only if it is told by name", async (t) => {
  const gateway = await serve(t, { "/api/auth/kdf": FOREIGN });
  assert.match(await isRefused(gateway), /novelai_data_access_key/);
  assert.match(await isRefused(gateway, { domain: "another" }), /novelai_data_access_key/);
  const client = new ProxyClient(gateway.url, { domain: FOREIGN.domain });
  assert.deepEqual(await client.parameters(), FOREIGN);
  assert.deepEqual(await new ProxyClient(gateway.url, { pin: await client.pin() }).parameters(), FOREIGN);
});

test("what was pinned at the sign-up holds, though a stronger key or another domain would be taken otherwise", async (t) => {
  const gateway = await serve(t, { "/api/auth/kdf": { ...DEFAULT_PARAMETERS, time_cost: 3 } });
  const pin = JSON.parse(JSON.stringify(await new ProxyClient(gateway.url).pin()));
  for (const change of [{ time_cost: 2 }, { memory_kib: 4096 }, { domain: "openrouter-proxy-other" }]) {
    gateway.answers["/api/auth/kdf"] = { ...DEFAULT_PARAMETERS, time_cost: 3, ...change };
    assert.match(await isRefused(gateway, { pin }), /otherwise than it did at the sign-up/);
    await new ProxyClient(gateway.url).parameters();
  }
  gateway.answers["/api/auth/kdf"] = { ...DEFAULT_PARAMETERS, time_cost: 3 };
  assert.deepEqual(await new ProxyClient(gateway.url, { pin }).pin(), pin);
  assert.throws(() => new ProxyClient("https://gateway.example", { pin }), /The pin is of http:\/\/127/);
});

test("http:// to a public name needs a switch", () => {
  const open = ["gateway.example", "8.8.8.8", "134744072", "[2001:4860:4860::8888]", "172.32.0.1", "localhost.example", "10.example"];
  for (const host of open) {
    assert.throws(() => new ProxyClient(`http://${host}`), /use https/, host);
    new ProxyClient(`http://${host}`, { allowsHttp: true });
    new ProxyClient(`https://${host}`);
  }
  const near = ["localhost:5000", "127.0.0.1", "[::1]:5000", "10.1.2.3", "172.16.0.1", "192.168.1.9", "[fd00::1]", "gateway", "box.local"];
  for (const host of near) new ProxyClient(`http://${host}`);
});
