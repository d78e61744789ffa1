// The client on a page: what comes of each case stands in globalThis.told. The gateway is the page's own origin, or what
// stands behind # in its address.
import { DEFAULT_PARAMETERS, ProxyClient, deriveKey } from "openrouter-proxy-client";

const PASSWORD = "🔑🗝️👩‍👩‍👧 correct horse";
const question = (model) => ({ model, messages: [{ role: "user", content: "Hello" }] });
const QUESTION = question("openai/gpt-4o-mini");
const username = `${crypto.randomUUID()}@example.com`;
const client = new ProxyClient(location.hash.slice(1) || location.origin, {
  tokens: JSON.parse(sessionStorage.getItem("tokens")),
  onTokens: (tokens) => sessionStorage.setItem("tokens", JSON.stringify(tokens)),
});
const stored = () => JSON.parse(sessionStorage.getItem("tokens"));

async function text(stream) {
  let said = "";
  for await (const chunk of stream) said += chunk.choices[0]?.delta.content ?? "";
  return said;
}

const cases = {
  async derives() {
    const { vectors } = await (await fetch("/kdf_vectors.json")).json();
    for (const { domain, email, password, derived_key } of vectors) {
      if ((await deriveKey(email, password, { ...DEFAULT_PARAMETERS, domain })) !== derived_key) return password;
    }
    return vectors.length;
  },
  async registers() {
    return (await client.register(username, PASSWORD)).message;
  },
  name_is_taken: () => client.register(username, PASSWORD),
  wrong_password: () => client.login(username, "hunter2"),
  async logs_in() {
    await client.login(username, PASSWORD);
    return stored().access_token === client.tokens.access_token;
  },
  chats: async () => (await client.chat(QUESTION)).choices[0].message.content,
  streams: () => text(client.stream(QUESTION)),
  async refreshes_once() {
    client.tokens = { ...client.tokens, access_token: "spoiled" };
    await Promise.all([client.quota(), client.usage(), text(client.stream(QUESTION))]);
    return [stored().refresh_token === client.tokens.refresh_token, client.tokens.refresh_token.split(".")[1]];
  },
  breaks_off: () => text(client.stream(question("sandbox/reset"))),
  stops: () => text(client.stream(question("sandbox/no-finish"))),
  is_limited: () => client.chat(question("sandbox/429c?retry_after=3")),
  async aborts() {
    const controller = new AbortController();
    const stream = client.stream(question("sandbox/stall"), { signal: controller.signal });
    await stream.next();
    controller.abort();
    await text(stream);
  },
  redirect: () => new ProxyClient(`${location.origin}/elsewhere`).parameters(),
  async logs_out() {
    await client.logout();
    return [client.tokens, stored(), document.cookie];
  },
  is_logged_out: () => client.quota(),
};

const told = {};
for (const [name, play] of Object.entries(cases)) {
  try {
    told[name] = await play();
  } catch (problem) {
    told[name] = [problem.name, problem.status ?? null, problem.type ?? null, problem.retryAfterSeconds ?? null];
  }
}
globalThis.told = told;
