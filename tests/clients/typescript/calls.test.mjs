// Answers, streams and errors, as they come over the wire.
import assert from "node:assert/strict";
import { createServer } from "node:http";
import { test } from "node:test";
import { eventData } from "../../../clients/typescript/dist/events.js";
import { ProxyClient } from "../../../clients/typescript/dist/index.js";
import { CHAT, COMPLETION, NEW, REQUEST, failure, say, serve, signal } from "./scripted.mjs";

const CONTENTS = ["Grüße", "🔑 👩‍👩‍👧", "конец"];
const chunk = (content, finish_reason = null) => ({ choices: [{ index: 0, delta: { content }, finish_reason }] });
const data = (value) => `data: ${JSON.stringify(value)}\n\n`;
const EVENT_STREAM = { "content-type": "text/event-stream; charset=utf-8", "x-request-id": "req-1" };

async function start(t, answer) {
  const gateway = await serve(t, { [CHAT]: answer });
  return { gateway, client: new ProxyClient(gateway.url, { tokens: NEW }) };
}

const streams = (t, ...parts) =>
  start(t, (_, response) => {
    response.writeHead(200, EVENT_STREAM);
    for (const part of parts) response.write(part);
    response.end();
  });

// What of a stream arrives, and what it throws then.
async function read(stream) {
  const contents = [];
  const problem = await failure(
    (async () => {
      for await (const each of stream) contents.push(each.choices[0].delta.content);
    })(),
  );
  return { contents, problem };
}

async function contents(stream) {
  const found = [];
  for await (const each of stream) found.push(each.choices[0]?.delta.content);
  return found;
}

test("chat sends any field, and never streams", async (t) => {
  const { gateway, client } = await start(t, COMPLETION);
  assert.deepEqual(await client.chat({ ...REQUEST, top_k: 5, stream: true }), COMPLETION);
  assert.deepEqual(gateway.requests[0].body, { ...REQUEST, top_k: 5, stream: false });
  assert.equal(gateway.requests[0].token, `Bearer ${NEW.access_token}`);
});

for (const end of ["\n", "\r\n"]) {
  for (const size of [1, 7, 100_000]) {
    test(`events however they are cut: ${JSON.stringify(end)}, ${size} bytes at a time`, async (t) => {
      const lines = [": OPENROUTER PROCESSING", "", ":", "", "event: ignored", "id: 1", ""];
      for (const content of CONTENTS) lines.push(`data: ${JSON.stringify(chunk(content))}`, ": in between", "");
      lines.push("data: [DONE]", "", 'data: {"after": "the end"}', "", "");
      const bytes = Buffer.from(lines.join(end));
      const parts = [];
      for (let at = 0; at < bytes.length; at += size) parts.push(bytes.subarray(at, at + size));
      // A socket may join what was written apart; a character in two pieces is certain here alone.
      const pieces = new ReadableStream({
        start(controller) {
          for (const part of parts) controller.enqueue(part);
          controller.close();
        },
      });
      const found = [];
      for await (const text of eventData(pieces)) found.push(text);
      const expected = CONTENTS.map((content) => JSON.stringify(chunk(content)));
      assert.deepEqual(found, [...expected, "[DONE]", '{"after": "the end"}']);
      const { gateway, client } = await streams(t, ...parts);
      assert.deepEqual(await contents(client.stream({ ...REQUEST, stream: false })), CONTENTS);
      assert.equal(gateway.requests[0].body.stream, true);
    });
  }
}

test("an event of several lines", async (t) => {
  const event = 'data:{"choices":\ndata: [{"delta":\n:\ndata: {"content": "x"}}]}\n\n';
  const { client } = await streams(t, event, "data:[DONE]\n\n");
  assert.deepEqual(await contents(client.stream(REQUEST)), ["x"]);
});

test("each event is handed over as it arrives, and leaving the loop ends the request", async (t) => {
  const gone = signal();
  const { client } = await start(t, (_, response) => {
    response.on("close", gone.arrive);
    response.writeHead(200, EVENT_STREAM);
    response.write(data(chunk("first")));
  });
  for await (const each of client.stream(REQUEST)) {
    assert.deepEqual(each, chunk("first"));
    break;
  }
  await gone.arrived;
});

test("finish_reason is an end, too", async (t) => {
  const { client } = await streams(t, data(chunk("x")), data(chunk("", "stop")), data({ choices: [], usage: {} }));
  assert.deepEqual(await contents(client.stream(REQUEST)), ["x", "", undefined]);
});

test("a stream that just stops never looks finished", async (t) => {
  const { client } = await streams(t, data(chunk("first")), data(chunk("lost")).trimEnd());
  const { contents, problem } = await read(client.stream(REQUEST));
  assert.deepEqual(contents, ["first"]);
  assert.deepEqual([problem.status, problem.type, problem.requestId], [0, "connection_error", "req-1"]);
});

test("nor does one whose connection is lost", async (t) => {
  const { client } = await start(t, (_, response) => {
    response.writeHead(200, EVENT_STREAM);
    response.write(data(chunk("first", "stop")), () => response.destroy());
  });
  const { problem } = await read(client.stream(REQUEST));
  assert.deepEqual([problem.status, problem.type], [0, "connection_error"]);
});

for (const [error, status, type] of [
  [{ code: 502, message: "Broke", metadata: { error_type: "server" } }, 502, "server"],
  [{ code: "server_error", message: "Broke" }, 200, ""],
]) {
  test(`an error in a stream: ${status}`, async (t) => {
    const { client } = await streams(t, data(chunk("first")), data({ ...chunk("", "error"), error }));
    const { contents, problem } = await read(client.stream(REQUEST));
    assert.deepEqual(contents, ["first"]);
    assert.deepEqual([problem.message, problem.status, problem.type], ["Broke", status, type]);
  });
}

test("data that is not JSON", async (t) => {
  const { client } = await streams(t, 'data: {"choices": [\n\n');
  assert.match((await read(client.stream(REQUEST))).problem.message, /not understood/);
});

test("an abort throws its reason: before the answer and within it", async (t) => {
  const asked = signal();
  const { client } = await start(t, asked.arrive);
  const before = new AbortController();
  const call = client.chat(REQUEST, { signal: before.signal });
  await asked.arrived;
  before.abort(new Error("enough"));
  await assert.rejects(call, { message: "enough" });

  const within = new AbortController();
  const second = await start(t, (_, response) => {
    response.writeHead(200, EVENT_STREAM);
    response.write(data(chunk("first")));
  });
  const stream = second.client.stream(REQUEST, { signal: within.signal });
  assert.deepEqual((await stream.next()).value, chunk("first"));
  within.abort();
  await assert.rejects(stream.next(), { name: "AbortError" });
  assert.equal((await stream.next()).done, true);
});

test("the gateway's errors", async (t) => {
  const message = "Too many requests";
  const error = { code: 429, message, type: "rate_limited", metadata: { error_type: "of a shorter list" } };
  const { client } = await start(t, (_, response) =>
    say(response, 429, { error, message, detail: message }, { "x-request-id": "req-1", "retry-after": "7" }),
  );
  for (const call of [client.chat(REQUEST), client.stream(REQUEST).next()]) {
    const problem = await failure(call);
    const { name, status, type, requestId, retryAfterSeconds } = problem;
    assert.deepEqual(
      { name, message: problem.message, status, type, requestId, retryAfterSeconds },
      { name: "ProxyError", message, status: 429, type: "rate_limited", requestId: "req-1", retryAfterSeconds: 7 },
    );
  }
});

for (const [body, message] of [
  [{ message: "Invalid credentials" }, "Invalid credentials"],
  ["<html><h1>502 Bad Gateway", "The gateway's answer is not understood (HTTP 502)"],
  ["[1]", "The gateway's answer is not understood (HTTP 502)"],
  ["", "The gateway's answer is not understood (HTTP 502)"],
  [{ error: { message: 5, metadata: [] } }, "The gateway's answer is not understood (HTTP 502)"],
  [{ message: `Bearer ${NEW.access_token} ${NEW.refresh_token}` }, "Bearer [secret] [secret]"],
]) {
  test(`another answer of status 502: ${JSON.stringify(body)}`, async (t) => {
    const { client } = await start(t, (_, response) => say(response, 502, body, { "retry-after": "Sat, 21 Nov 2026" }));
    const problem = await failure(client.chat(REQUEST));
    assert.deepEqual([problem.status, problem.message, problem.type], [502, message, ""]);
    assert.equal(problem.retryAfterSeconds, null);
  });
}

test("an error, or a page, where an answer should be", async (t) => {
  const { gateway, client } = await start(t, (_, response) =>
    say(response, 200, '\n         \n{"error": {"code": 503, "message": "Overloaded"}}'),
  );
  for (const call of [client.chat(REQUEST), client.stream(REQUEST).next()]) {
    const problem = await failure(call);
    assert.deepEqual([problem.status, problem.message], [503, "Overloaded"]);
  }
  gateway.answers[CHAT] = (_, response) => say(response, 200, "<html>Sign in to the hotel network");
  for (const call of [client.chat(REQUEST), client.stream(REQUEST).next()]) {
    assert.match((await failure(call)).message, /not understood/);
  }
});

test("nobody answers", async () => {
  const server = createServer();
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const url = `http://127.0.0.1:${server.address().port}`;
  await new Promise((resolve) => server.close(resolve));
  const problem = await failure(new ProxyClient(url, { tokens: NEW }).chat(REQUEST));
  assert.deepEqual([problem.status, problem.type], [0, "connection_error"]);
});

for (const status of [302, 307]) {
  test(`a redirect is not followed: ${status}`, async (t) => {
    const elsewhere = await serve(t, { [CHAT]: COMPLETION });
    const { client } = await start(t, (_, response) => say(response, status, "", { location: elsewhere.url + CHAT }));
    assert.match((await failure(client.chat(REQUEST))).message, /not followed/);
    assert.deepEqual(elsewhere.requests, []);
  });
}

test("addresses and tokens that cannot work", async () => {
  for (const url of ["gateway.example", "ftp://gateway.example", "http://", "http://user:pw@localhost"]) {
    assert.throws(() => new ProxyClient(url), (problem) => problem instanceof TypeError && !/pw/.test(problem.message));
  }
  const client = new ProxyClient("http://127.0.0.1:9", { tokens: { access_token: `${NEW.access_token}\nX: y` } });
  assert.equal((await failure(client.chat(REQUEST))).type, "invalid_request");
});
