// A program that compiles, and mistakes that do not.
import { DEFAULT_PARAMETERS, ProxyClient, ProxyError, deriveKey } from "openrouter-proxy-client";
import type { ChatChunk, ChatRequest, KdfParameters, Quota, Tokens, Usage } from "openrouter-proxy-client";

const request: ChatRequest = {
  model: "openai/gpt-4o-mini",
  messages: [{ role: "user", content: [{ type: "text", text: "Hello" }] }],
  temperature: 0,
  provider: { order: ["a"] },
};

export async function use(tokens: Tokens | null, signal: AbortSignal): Promise<number> {
  const client = new ProxyClient("https://gateway.example", { tokens, onTokens: async (found) => console.log(found) });
  const { user, expires_in } = await client.login("user@example.com", "correct horse battery");
  const answer = await client.chat(request, { signal });
  const text: string | null | undefined = answer.choices[0]?.message.content;
  for await (const chunk of client.stream(request)) {
    const each: ChatChunk = chunk;
    console.log(each.choices[0]?.delta.content?.length, each.usage?.cost, text);
  }
  const usage: Usage = await client.usage({ start_date: "2026-11-01" });
  const quota: Quota = await client.quota();
  const parameters: KdfParameters = { ...DEFAULT_PARAMETERS, time_cost: 3 };
  client.tokens = { access_token: await deriveKey("user@example.com", "correct horse battery", parameters) };
  try {
    await client.logout();
  } catch (problem) {
    if (problem instanceof ProxyError) return problem.retryAfterSeconds ?? problem.status;
  }
  return user.id + expires_in + usage.totals.cost_nano + (quota.remaining_usd ?? 0);
}

export async function misuse(client: ProxyClient): Promise<void> {
  // @ts-expect-error: messages are needed
  await client.chat({ model: "openai/gpt-4o-mini" });
  // @ts-expect-error: there is no such role
  await client.chat({ ...request, messages: [{ role: "robot", content: "Hello" }] });
  // @ts-expect-error: the name is start_date
  await client.usage({ startDate: "2026-11-01" });
  // @ts-expect-error: an access token is needed
  client.tokens = { refresh_token: "x" };
  // @ts-expect-error: other algorithms have no key
  await deriveKey("user", "password", { ...DEFAULT_PARAMETERS, algorithm: "argon2i" });
}
