// Vercel's AI SDK with OpenRouter's provider for it.
import { createOpenRouter } from "@openrouter/ai-sdk-provider";
import { Output, embedMany, generateText, jsonSchema, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";
import { BASE_URL, MODEL, PARAMETERS, QUESTION, SPENT_KEY, meets, run, waited } from "./cases.mjs";

const as = (apiKey) => createOpenRouter({ baseURL: BASE_URL, apiKey });
const openrouter = as(); // OPENROUTER_API_KEY
const said = z.object({ stand_in: z.boolean() });
const weather = tool({
  description: "Tell the weather",
  inputSchema: jsonSchema(PARAMETERS),
  execute: async ({ query }) => `sunny in ${query}`,
});
const agent = { model: openrouter("sandbox/tools"), tools: { weather }, stopWhen: stepCountIs(3), prompt: QUESTION };
const ask = (model = MODEL, from = openrouter, more = {}) =>
  generateText({ model: from(model), prompt: QUESTION, ...more }).then(({ text }) => text);

// An error in a stream is one of its parts.
async function partsOf(model) {
  const parts = [];
  const { fullStream } = streamText({ model: openrouter(model), prompt: QUESTION, onError: () => {} });
  for await (const part of fullStream) parts.push(part);
  return parts;
}
const textOf = (parts) => parts.map((part) => (part.type === "text-delta" ? part.text : "")).join("");
const stepsOf = (steps) => steps.map(({ finishReason, toolResults }) => [finishReason, toolResults.map(({ output }) => output)]);

await run({
  answers: () => ask(),
  streams: async () => textOf(await partsOf(MODEL)),
  calls_a_tool: async () => stepsOf((await generateText(agent)).steps),
  async calls_a_tool_in_a_stream() {
    const stream = streamText(agent);
    await stream.consumeStream();
    return stepsOf(await stream.steps);
  },
  async parses_structured_output() {
    const { output } = await generateText({ model: openrouter(MODEL), prompt: QUESTION, output: Output.object({ schema: said }) });
    return output.stand_in;
  },
  async embeds() {
    const model = openrouter.textEmbeddingModel("openai/text-embedding-3-small");
    return (await embedMany({ model, values: ["one", "two"] })).embeddings.map((embedding) => embedding.length > 0);
  },
  stranger: () => ask(MODEL, as("sk-auto-unknown")),
  spent: () => ask(MODEL, as(SPENT_KEY)),
  forbidden: () => ask("sandbox/403a"),
  async is_limited_once() {
    await meets("429c?retry_after=1", 1);
    return waited(async () => textOf(await partsOf(MODEL)));
  },
  busy: () => ask("sandbox/503?retry_after=1", openrouter, { maxRetries: 1 }),
  fails_in_its_middle: async () => (await partsOf("sandbox/error-usage")).filter(({ type }) => type === "error").length,
});
