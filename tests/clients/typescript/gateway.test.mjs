// Against a running gateway (GATEWAY) before the stand-in for OpenRouter.
import assert from "node:assert/strict";
import { createHmac, randomUUID } from "node:crypto";
import { test } from "node:test";
import { setTimeout } from "node:timers/promises";
import { ProxyClient } from "../../../clients/typescript/dist/index.js";
import { failure } from "./scripted.mjs";

const { GATEWAY } = process.env;
const PASSWORD = "🔑🗝️👩‍👩‍👧 correct horse";
const question = (model) => ({ model, messages: [{ role: "user", content: "Hello" }] });
const QUESTION = question("openai/gpt-4o-mini");

async function newUser() {
  const username = `${randomUUID()}@example.com`;
  const client = new ProxyClient(GATEWAY);
  await client.register(username, PASSWORD);
  await client.login(username, PASSWORD);
  return { username, client };
}

const spoiled = (tokens) => ({ ...tokens, access_token: `${tokens.access_token.slice(0, -4)}AAAA` });
const refreshes = ({ refresh_token }) => Number(refresh_token.split(".")[1]) - 1;

async function text(stream) {
  let said = "";
  for await (const chunk of stream) said += chunk.choices[0]?.delta.content ?? "";
  return said;
}

test("from sign-up to log-out", async () => {
  const { username, client } = await newUser();
  const taken = await failure(client.register(username, "another password"));
  assert.deepEqual([taken.status, taken.type, taken.message], [400, "username_taken", "Username already exists"]);
  const wrong = await failure(new ProxyClient(GATEWAY).login(username, "hunter2"));
  assert.deepEqual([wrong.status, wrong.message], [401, "Invalid credentials"]);
  assert.match(wrong.requestId, /^[0-9a-f]{32}$/);

  const answer = await client.chat(QUESTION);
  assert.match(answer.choices[0].message.content, /stand-in/);
  assert.match(await text(client.stream(QUESTION)), /stand-in/);
  let usage = await client.usage();
  while (usage.totals.requests < 2) {
    await setTimeout(50); // the sums follow within seconds
    usage = await client.usage();
  }
  assert.deepEqual([usage.totals.requests, usage.by_model[0].model], [2, QUESTION.model]);
  assert.equal((await client.quota()).limit_usd, null);

  const { tokens } = client;
  await client.logout();
  assert.equal(client.tokens, null);
  assert.equal((await failure(new ProxyClient(GATEWAY, { tokens }).quota())).status, 401);
});

test("a token that is refused is exchanged once, however many calls find out", async () => {
  const { client } = await newUser();
  client.tokens = spoiled(client.tokens);
  await Promise.all([client.chat(QUESTION), text(client.stream(QUESTION)), client.usage(), client.quota()]);
  assert.equal(refreshes(client.tokens), 1);
});

test("who uses the predecessor within seconds gets the same successor", async () => {
  const { client } = await newUser();
  const tokens = spoiled(client.tokens);
  const tabs = [1, 2].map(() => new ProxyClient(GATEWAY, { tokens }));
  await Promise.all(tabs.map((tab) => tab.quota()));
  assert.equal(tabs[0].tokens.refresh_token, tabs[1].tokens.refresh_token);
});

test("a session that was ended elsewhere says to log in again", async () => {
  const { username, client } = await newUser();
  const elsewhere = new ProxyClient(GATEWAY);
  await elsewhere.login(username, PASSWORD);
  const headers = { Authorization: `Bearer ${elsewhere.tokens.access_token}` };
  assert.ok((await fetch(`${GATEWAY}/api/auth/logout-all`, { method: "POST", headers })).ok);
  const problem = await failure(client.chat(QUESTION));
  assert.deepEqual([problem.status, client.tokens], [401, null]);
  assert.match(problem.message, /log in again/);
  await client.login(username, PASSWORD);
  await client.chat(QUESTION);
});

for (const model of ["no-done", "split-utf8", "comments", "crlf", "half-events"]) {
  test(`a stream that is odd but whole: ${model}`, async () => {
    const { client } = await newUser();
    assert.ok((await text(client.stream(question(`sandbox/${model}`)))).length > 0);
  });
}

for (const model of ["reset", "cut", "error-mid", "error-usage", "no-finish"]) {
  test(`a stream that breaks off: ${model}`, async () => {
    const { client } = await newUser();
    const problem = await failure(text(client.stream(question(`sandbox/${model}`))));
    assert.equal(problem.status, 502);
  });
}

test("a stream that is aborted", async () => {
  const { client } = await newUser();
  const controller = new AbortController();
  const stream = client.stream(question("sandbox/stall"), { signal: controller.signal });
  assert.ok((await stream.next()).value.id);
  controller.abort();
  await assert.rejects(text(stream), { name: "AbortError" });
});

test("OpenRouter's own limits say how long to wait", async () => {
  const { client } = await newUser();
  for (const call of ["chat", "stream"]) {
    const answer = client[call](question("sandbox/429c?retry_after=3"));
    const problem = await failure(call === "chat" ? answer : answer.next());
    assert.deepEqual([problem.status, problem.retryAfterSeconds], [429, 3]);
  }
});

test("a forgotten password is made up for by a recovery code", async () => {
  const { username, client } = await newUser();
  const codes = await client.newRecoveryCodes();
  assert.equal(codes.length, 10);
  const other = new ProxyClient(GATEWAY);
  const wrong = await failure(other.recover(username, "nothing", "quiet meadow 84"));
  assert.deepEqual([wrong.status, other.tokens], [401, null]);
  await other.recover(username, codes[0], "quiet meadow 84");
  assert.equal((await other.quota()).limit_usd, null);
  assert.equal((await failure(client.login(username, PASSWORD))).status, 401);
  await client.login(username, "quiet meadow 84");
});

/** The code of an authenticator app, now: RFC 6238 over RFC 4226, the secret in base 32. */
function codeOf(secret) {
  const bits = [...secret].map((c) => "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567".indexOf(c).toString(2).padStart(5, "0")).join("");
  const key = Buffer.from(bits.match(/.{8}/g).map((byte) => parseInt(byte, 2)));
  const step = Buffer.alloc(8);
  step.writeBigUInt64BE(BigInt(Math.floor(Date.now() / 30_000)));
  const digest = createHmac("sha1", key).update(step).digest();
  const number = digest.readUInt32BE(digest.at(-1) & 15) & 0x7fffffff;
  return String(number % 1_000_000).padStart(6, "0");
}

test("an account with a second factor is logged in to with both", async () => {
  const { username, client } = await newUser();
  const codes = await client.newRecoveryCodes();
  const ask = async (path, body) => {
    const headers = { authorization: `Bearer ${client.tokens.access_token}`, "content-type": "application/json" };
    const answer = await fetch(GATEWAY + path, { method: "POST", headers, body: body && JSON.stringify(body) });
    assert.ok(answer.ok);
    return answer.json();
  };
  const { secret } = await ask("/api/auth/second-factor");
  await ask("/api/auth/second-factor/confirm", { code: codeOf(secret) });
  const other = new ProxyClient(GATEWAY);
  const needed = await failure(other.login(username, PASSWORD));
  assert.deepEqual([needed.status, needed.type, other.tokens], [403, "second_factor_needed", null]);
  await other.login(username, PASSWORD, codes[0]);
  assert.equal((await other.quota()).limit_usd, null);
});
