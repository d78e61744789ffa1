// A server that answers what each test says, and what the tests have in common.
import assert from "node:assert/strict";
import { createServer } from "node:http";
import { ProxyClient, ProxyError } from "../../../clients/typescript/dist/index.js";

export const CHAT = "/v1/chat/completions";
export const REFRESH = "/api/auth/refresh";
export const OLD = { access_token: "old-token", refresh_token: "old-refresh-token" };
export const NEW = { access_token: "new-token", refresh_token: "new-refresh-token" };
export const REQUEST = { model: "a/model", messages: [{ role: "user", content: "Hello" }] };
export const COMPLETION = { choices: [{ index: 0, message: { role: "assistant", content: "Grüße" } }] };

// answers: by path, a body, or a function that gets the request (with its `body`) and the response.
export async function serve(t, answers = {}) {
  const requests = [];
  const server = createServer(async (request, response) => {
    let body = "";
    for await (const data of request.setEncoding("utf8")) body += data;
    Object.assign(request, { body: body && JSON.parse(body), path: request.url, token: request.headers.authorization });
    requests.push(request);
    const answer = answers[request.url];
    if (typeof answer === "function") await answer(request, response);
    else say(response, answer === undefined ? 404 : 200, answer ?? { message: "There is nothing at this path" });
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  const url = `http://127.0.0.1:${server.address().port}`;
  return { url, answers, requests, paths: () => requests.map(({ path }) => path) };
}

export function say(response, status, body, headers = {}) {
  response.writeHead(status, { "content-type": "application/json", ...headers });
  response.end(typeof body === "string" ? body : JSON.stringify(body));
}

export const refuse = (status, message, headers) => (_, response) => say(response, status, { message }, headers);

// Takes the new token alone.
export function answerChat({ token }, response) {
  if (token === `Bearer ${NEW.access_token}`) say(response, 200, COMPLETION);
  else say(response, 401, { message: "The token has expired; log in again" });
}

// A client whose access token has run out, and what its hook was told.
export async function expired(t, answers = {}) {
  const gateway = await serve(t, { [CHAT]: answerChat, [REFRESH]: NEW, ...answers });
  const told = [];
  const client = new ProxyClient(gateway.url, { tokens: OLD, onTokens: (tokens) => void told.push(tokens) });
  return { gateway, client, told };
}

// The ProxyError that a call throws, whose words hold no secret.
export async function failure(call) {
  const problem = await call.then(() => assert.fail("it did not fail"), (error) => error);
  assert.ok(problem instanceof ProxyError, problem);
  const said = JSON.stringify([String(problem), problem, String(problem.cause), problem.stack]);
  const secrets = [...Object.values(OLD), ...Object.values(NEW), "hunter2"];
  assert.deepEqual(secrets.filter((secret) => said.includes(secret)), [], said);
  return problem;
}

// A promise, and what fulfils it.
export function signal() {
  let arrive;
  const arrived = new Promise((resolve) => (arrive = resolve));
  return { arrived, arrive };
}
