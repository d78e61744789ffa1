// Tokens: kept, exchanged when they have run out, forgotten.
import assert from "node:assert/strict";
import { test } from "node:test";
import { inspect } from "node:util";
import { DEFAULT_PARAMETERS, ProxyClient } from "../../../clients/typescript/dist/index.js";
import { CHAT, COMPLETION, NEW, OLD, REFRESH, REQUEST } from "./scripted.mjs";
import { answerChat, expired, failure, refuse, say, serve, signal } from "./scripted.mjs";

test("register and login send the derived key alone, and keep the tokens", async (t) => {
  const told = [];
  const gateway = await serve(t, {
    "/api/auth/kdf": DEFAULT_PARAMETERS,
    "/register": { message: "User registered successfully" },
    "/login": { message: "Login successful", token: NEW.access_token, ...NEW, expires_in: 60, user: { id: 7 } },
    [CHAT]: answerChat,
  });
  const client = new ProxyClient(`${gateway.url}/`, { onTokens: (tokens) => void told.push(tokens) });
  assert.equal((await client.register("bob@example.com", "hunter2")).message, "User registered successfully");
  assert.equal((await client.login("bob@example.com", "hunter2")).user.id, 7);
  assert.deepEqual(await client.chat(REQUEST), COMPLETION);
  assert.deepEqual(gateway.paths(), ["/api/auth/kdf", "/register", "/login", CHAT]);
  const sent = {
    username: "bob@example.com",
    derived_key: "m6bexMMclCXIJNyVRCTHqELVwogAeetxyCPMdK0YxoUttq7orXdCRXiw7U5mDvLN",
  };
  for (const { body, token } of gateway.requests.slice(1, 3)) assert.deepEqual([body, token], [sent, undefined]);
  assert.deepEqual(client.tokens, NEW);
  assert.deepEqual(told, [NEW]);
  assert.ok(!(inspect(client, { showHidden: true, depth: 9 }) + JSON.stringify(client)).includes("token-"));
});

test("a downgrade by the server is refused before a key is sent, and asked about anew", async (t) => {
  const gateway = await serve(t, { "/api/auth/kdf": { ...DEFAULT_PARAMETERS, time_cost: 1 } });
  const client = new ProxyClient(gateway.url);
  for (const call of [client.login("bob@example.com", "hunter2"), client.register("bob@example.com", "hunter2")]) {
    const problem = await failure(call);
    assert.deepEqual([problem.status, problem.type], [0, "key_derivation_refused"]);
    assert.match(problem.message, /time_cost/);
  }
  gateway.answers["/api/auth/kdf"] = DEFAULT_PARAMETERS;
  assert.deepEqual(await client.parameters(), DEFAULT_PARAMETERS);
  assert.deepEqual(new Set(gateway.paths()), new Set(["/api/auth/kdf"]));
});

test("a log-in whose answer holds no tokens changes nothing", async (t) => {
  const gateway = await serve(t, { "/api/auth/kdf": DEFAULT_PARAMETERS, "/login": { access_token: "a" } });
  const client = new ProxyClient(gateway.url, { tokens: OLD });
  assert.match((await failure(client.login("bob@example.com", "hunter2"))).message, /no tokens/);
  assert.deepEqual(client.tokens, OLD);
});

test("a wrong password is no reason to refresh", async (t) => {
  const { gateway, client } = await expired(t, {
    "/api/auth/kdf": DEFAULT_PARAMETERS,
    "/login": refuse(401, "Invalid credentials"),
  });
  assert.equal((await failure(client.login("bob@example.com", "hunter2"))).message, "Invalid credentials");
  assert.deepEqual(gateway.paths(), ["/api/auth/kdf", "/login"]);
});

test("a token that has run out is exchanged unnoticed", async (t) => {
  const { gateway, client, told } = await expired(t);
  assert.deepEqual(await client.chat(REQUEST), COMPLETION);
  assert.deepEqual(gateway.paths(), [CHAT, REFRESH, CHAT]);
  const [refused, refresh, repeated] = gateway.requests;
  assert.deepEqual([refresh.body, refresh.token], [{ refresh_token: OLD.refresh_token }, undefined]);
  assert.deepEqual(refused.body, repeated.body);
  assert.deepEqual([client.tokens, told], [NEW, [NEW]]);
  await client.chat(REQUEST);
  assert.equal(gateway.paths().length, 4);
});

test("parallel calls share one refresh, and one that was refused later takes its token", async (t) => {
  const { gateway, client, told } = await expired(t);
  const [all, refreshed] = [signal(), signal()];
  let refused = 0;
  gateway.answers[CHAT] = async (request, response) => {
    if (request.token === `Bearer ${OLD.access_token}`) {
      refused += 1;
      if (refused === 6) all.arrive();
      else await all.arrived; // so all have been sent with the old token
      if (request.body.model === "late") await refreshed.arrived;
    }
    answerChat(request, response);
  };
  const late = client.chat({ ...REQUEST, model: "late" });
  await Promise.all(Array.from({ length: 5 }, () => client.chat(REQUEST)));
  refreshed.arrive();
  await late;
  assert.deepEqual(gateway.paths().sort(), [REFRESH, ...Array(12).fill(CHAT)]);
  assert.deepEqual(told, [NEW]);
});

test("a second refusal is told", async (t) => {
  const { gateway, client } = await expired(t, { [REFRESH]: { ...NEW, access_token: "not-good-either" } });
  assert.match((await failure(client.chat(REQUEST))).message, /log in again/);
  assert.deepEqual(gateway.paths(), [CHAT, REFRESH, CHAT]);
});

for (const status of [400, 401, 403]) {
  test(`a refresh refused with ${status} says why to all that wait, and is not tried again`, async (t) => {
    const message = `${OLD.refresh_token} is revoked; log in again`;
    const { gateway, client, told } = await expired(t, { [REFRESH]: refuse(status, message) });
    for (const problem of await Promise.all([failure(client.chat(REQUEST)), failure(client.chat(REQUEST))])) {
      assert.match(problem.message, /log in again/);
    }
    assert.deepEqual([client.tokens, told], [null, [null]]);
    assert.equal((await failure(client.chat(REQUEST))).status, 401);
    assert.deepEqual(gateway.paths().filter((path) => path === REFRESH), [REFRESH]);
  });
}

test("a refresh that has to wait keeps the session", async (t) => {
  const { gateway, client, told } = await expired(t, { [REFRESH]: refuse(429, "Too many", { "retry-after": "30" }) });
  const problem = await failure(client.chat(REQUEST));
  assert.deepEqual([problem.status, problem.retryAfterSeconds], [429, 30]);
  assert.deepEqual([client.tokens, told], [OLD, []]);
  gateway.answers[REFRESH] = NEW;
  assert.deepEqual(await client.chat(REQUEST), COMPLETION);
});

test("a lost answer of a refresh is asked for once more", async (t) => {
  const { gateway, client } = await expired(t);
  let lost = 0;
  gateway.answers[REFRESH] = (request, response) => {
    lost += 1;
    if (lost === 1) request.socket.destroy();
    else say(response, 200, NEW);
  };
  await client.chat(REQUEST);
  assert.deepEqual(gateway.paths(), [CHAT, REFRESH, REFRESH, CHAT]);
  client.tokens = OLD;
  gateway.answers[REFRESH] = ({ socket }) => socket.destroy();
  assert.deepEqual((await failure(client.chat(REQUEST))).type, "connection_error");
  assert.deepEqual(client.tokens, OLD);
  assert.deepEqual(gateway.paths().slice(4), [CHAT, REFRESH, REFRESH]);
});

test("a refresh that nobody answers is asked for again while the gateway still repeats its answer", async (t) => {
  const times = [];
  const { client } = await expired(t, {
    [REFRESH]: (_, response) => {
      if (times.push(performance.now()) === 2) say(response, 200, NEW);
    },
  });
  assert.deepEqual(await client.chat(REQUEST), COMPLETION);
  assert.ok(times[1] - times[0] < 10_000);
});

test("a client key stands alone", async (t) => {
  const { gateway, client } = await expired(t);
  client.tokens = { access_token: "sk-auto-unknown" };
  assert.equal((await failure(client.chat(REQUEST))).status, 401);
  assert.deepEqual(gateway.paths(), [CHAT]);
});

test("a call of one user is not repeated as another, nor do their tokens mix", async (t) => {
  const { gateway, client, told } = await expired(t);
  gateway.answers[CHAT] = (request, response) => {
    client.tokens = { access_token: "of-somebody-else" };
    answerChat(request, response);
  };
  assert.equal((await failure(client.chat(REQUEST))).status, 401);
  assert.deepEqual(gateway.paths(), [CHAT]);
  gateway.answers[CHAT] = answerChat;
  gateway.answers[REFRESH] = (_, response) => {
    client.tokens = { access_token: "of-somebody-else" };
    say(response, 200, NEW);
  };
  client.tokens = OLD;
  assert.deepEqual(await client.chat(REQUEST), COMPLETION);
  assert.deepEqual([client.tokens, told], [{ access_token: "of-somebody-else" }, []]);
});

test("a call that is aborted leaves the refresh to the others", async (t) => {
  const [waiting, aborted] = [signal(), signal()];
  const { gateway, client } = await expired(t, {
    [REFRESH]: async (_, response) => {
      waiting.arrive();
      await aborted.arrived;
      say(response, 200, NEW);
    },
  });
  const controller = new AbortController();
  const given = client.chat(REQUEST, { signal: controller.signal });
  const other = client.chat(REQUEST);
  await waiting.arrived;
  controller.abort();
  await assert.rejects(given, { name: "AbortError" });
  aborted.arrive();
  assert.deepEqual(await other, COMPLETION);
  assert.equal(gateway.paths().filter((path) => path === REFRESH).length, 1);
});

for (const [status, fails] of [[200, false], [401, false], [503, true]]) {
  test(`logout forgets the tokens after ${status}, too`, async (t) => {
    const { client, gateway, told } = await expired(t, {
      "/api/auth/logout": refuse(status, "Whatever"),
      [REFRESH]: refuse(401, "Revoked"),
    });
    if (fails) assert.equal((await failure(client.logout())).message, "Whatever");
    else await client.logout();
    assert.equal(gateway.requests[0].token, `Bearer ${OLD.access_token}`);
    assert.equal(client.tokens, null);
    assert.equal(told.at(-1), null);
  });
}

test("usage and quota", async (t) => {
  const gateway = await serve(t, {
    "/api/usage/stats": { totals: 1 },
    "/api/usage/stats?start_date=2026-11-01&end_date=2026-11-02": { totals: 2 },
    "/api/quota": { limit_usd: null },
  });
  const client = new ProxyClient(gateway.url, { tokens: NEW });
  assert.deepEqual(await client.usage(), { totals: 1 });
  assert.deepEqual(await client.usage({ start_date: "2026-11-01", end_date: "2026-11-02" }), { totals: 2 });
  assert.deepEqual(await client.quota(), { limit_usd: null });
});
