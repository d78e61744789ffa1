// OpenAI's Node SDK.
import OpenAI from "openai";
import { zodResponseFormat, zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";
import { BASE_URL, MODEL, PARAMETERS, QUESTION, SPENT_KEY, meets, run, waited } from "./cases.mjs";

const as = (apiKey) => new OpenAI({ baseURL: BASE_URL, apiKey });
const client = new OpenAI(); // OPENAI_BASE_URL, OPENAI_API_KEY
const messages = [{ role: "user", content: QUESTION }];
const tools = [{ type: "function", function: { name: "weather", parameters: PARAMETERS } }];
const said = z.object({ stand_in: z.boolean() });

async function streamed(model) {
  let text = "";
  for await (const chunk of await client.chat.completions.create({ model, messages, stream: true })) {
    text += chunk.choices[0]?.delta.content ?? "";
  }
  return text;
}

await run({
  async answers() {
    const answer = await client.chat.completions.create({ model: MODEL, messages });
    return answer.choices[0].message.content;
  },
  streams: () => streamed(MODEL),
  async calls_a_tool() {
    const weather = { ...tools[0].function, parse: JSON.parse, function: ({ query }) => `sunny in ${query}` };
    const runner = client.chat.completions.runTools({
      model: "sandbox/tools", messages, tools: [{ type: "function", function: weather }],
    });
    await runner.finalContent();
    return runner.messages.map(({ role, content, tool_calls }) => tool_calls?.[0].function ?? { role, content });
  },
  async calls_a_tool_in_a_stream() {
    const stream = client.chat.completions.stream({ model: "sandbox/tools", messages, tools });
    return (await stream.finalMessage()).tool_calls[0].function;
  },
  async parses_structured_output() {
    const response_format = zodResponseFormat(said, "said");
    const answer = await client.chat.completions.parse({ model: MODEL, messages, response_format });
    return answer.choices[0].message.parsed.stand_in;
  },
  async completes_text() {
    const answer = await client.completions.create({ model: MODEL, prompt: QUESTION });
    return answer.choices[0].text;
  },
  async embeds() {
    const { data } = await client.embeddings.create({ model: "openai/text-embedding-3-small", input: ["one", "two"] });
    return data.map(({ embedding }) => embedding.length > 0 && embedding.every(Number.isFinite));
  },
  async responds() {
    const stream = client.responses.stream({ model: MODEL, input: QUESTION });
    const whole = await client.responses.create({ model: MODEL, input: QUESTION });
    return [whole.output_text, (await stream.finalResponse()).output_text];
  },
  async calls_a_tool_in_a_response() {
    const request = { model: "sandbox/tools", tools: [{ type: "function", ...tools[0].function, strict: false }] };
    const input = [{ role: "user", content: QUESTION }];
    const [call] = (await client.responses.create({ ...request, input })).output;
    const told = { type: "function_call_output", call_id: call.call_id, output: "sunny" };
    const answer = await client.responses.create({ ...request, input: [...input, call, told] });
    return [call.name, JSON.parse(call.arguments), answer.output_text];
  },
  async parses_a_structured_response() {
    const text = { format: zodTextFormat(said, "said") };
    return (await client.responses.parse({ model: MODEL, input: QUESTION, text })).output_parsed.stand_in;
  },
  async lists_models() {
    const ids = [];
    for await (const { id } of client.models.list()) ids.push(id);
    return ids.includes(MODEL);
  },
  stranger: () => as("sk-auto-unknown").chat.completions.create({ model: MODEL, messages }),
  spent: () => as(SPENT_KEY).chat.completions.create({ model: MODEL, messages }),
  forbidden: () => client.chat.completions.create({ model: "sandbox/403a", messages }),
  async is_limited_once() {
    await meets("429c?retry_after=1", 1);
    return waited(() => streamed(MODEL));
  },
  failed: () => client.chat.completions.create({ model: "sandbox/502", messages }, { maxRetries: 1 }),
  busy: () => client.chat.completions.create({ model: "sandbox/503?retry_after=1", messages }, { maxRetries: 1 }),
  fails_in_its_middle: () => streamed("sandbox/error-usage"),
});
