// OpenRouter's Node SDK.
import { OpenRouter } from "@openrouter/sdk";
import { BASE_URL, MODEL, PARAMETERS, QUESTION, SPENT_KEY, meets, run, waited } from "./cases.mjs";

// By itself it tries again for an hour; these are milliseconds.
const soon = {
  strategy: "backoff",
  backoff: { initialInterval: 1, maxInterval: 1000, exponent: 1.5, maxElapsedTime: 60_000 },
  retryConnectionErrors: false,
};
const as = (apiKey) => new OpenRouter({ serverURL: BASE_URL, apiKey, retryConfig: soon });
const client = new OpenRouter({ retryConfig: soon }); // OPENROUTER_BASE_URL, OPENROUTER_API_KEY
const messages = [{ role: "user", content: QUESTION }];
const tools = [{ type: "function", function: { name: "weather", parameters: PARAMETERS } }];

const send = (fields, from = client, options = {}) =>
  from.chat.send({ chatRequest: { model: MODEL, messages, ...fields } }, options);

async function chunksOf(fields) {
  const chunks = [];
  for await (const chunk of await send({ ...fields, stream: true })) chunks.push(chunk);
  return chunks;
}
const textOf = (chunks) => chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join("");

await run({
  answers: async () => (await send({})).choices[0].message.content,
  streams: async () => textOf(await chunksOf({})),
  async calls_a_tool() {
    const model = "sandbox/tools";
    const { message } = (await send({ model, tools })).choices[0];
    const told = { role: "tool", toolCallId: message.toolCalls[0].id, content: "sunny" };
    const next = await send({ model, tools, messages: [...messages, message, told] });
    return [message.toolCalls[0].function, next.choices[0].finishReason];
  },
  async calls_a_tool_in_a_stream() {
    const chunks = await chunksOf({ model: "sandbox/tools", tools });
    const calls = chunks.flatMap((chunk) => chunk.choices[0]?.delta.toolCalls ?? []);
    return { name: calls[0].function.name, arguments: calls.map((call) => call.function.arguments ?? "").join("") };
  },
  async gets_structured_output() {
    const schema = { type: "object", properties: { stand_in: { type: "boolean" } }, required: ["stand_in"] };
    const responseFormat = { type: "json_schema", jsonSchema: { name: "said", strict: true, schema } };
    return JSON.parse((await send({ responseFormat })).choices[0].message.content).stand_in;
  },
  async embeds() {
    const requestBody = { model: "openai/text-embedding-3-small", input: ["one", "two"] };
    const { data } = await client.embeddings.generate({ requestBody });
    return data.map(({ embedding }) => embedding.length > 0);
  },
  async responds() {
    const answer = await client.beta.responses.send({ responsesRequest: { model: MODEL, input: QUESTION } });
    return answer.outputText ?? answer.output[0].content[0].text;
  },
  async streams_a_response() {
    const responsesRequest = { model: MODEL, input: QUESTION, stream: true };
    let text = "";
    for await (const event of await client.beta.responses.send({ responsesRequest })) {
      if (event.type === "response.output_text.delta") text += event.delta;
    }
    return text;
  },
  async lists_models() {
    const ids = [];
    for await (const page of await client.models.list()) ids.push(...page.result.data.map(({ id }) => id));
    return ids.includes(MODEL);
  },
  shows_its_key: async () => Object.keys((await client.apiKeys.getCurrentKeyMetadata()).data).includes("limitRemaining"),
  stranger: () => send({}, as("sk-auto-unknown")),
  spent: () => send({}, as(SPENT_KEY)),
  forbidden: () => send({ model: "sandbox/403a" }),
  limited: () => send({ model: "sandbox/429c" }),
  async fails_once() {
    await meets("502", 3); // the gateway's own tries
    return (await send({})).choices[0].message.content;
  },
  async is_busy_once() {
    await meets("503?retry_after=1", 3);
    return waited(async () => textOf(await chunksOf({})));
  },
  gives_up: () => send({ model: "sandbox/502" }, client, { retries: { strategy: "none" } }),
  fails_in_its_middle: async () => (await chunksOf({ model: "sandbox/error-usage" })).map((chunk) => chunk.error?.code),
});
