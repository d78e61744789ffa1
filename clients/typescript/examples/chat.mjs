// Registers, logs in, has an answer streamed and says what it cost:
//   node examples/chat.mjs https://gateway.example user@example.com "correct horse battery"
import { ProxyClient, ProxyError } from "openrouter-proxy-client";

const [url, username, password] = process.argv.slice(2);
const client = new ProxyClient(url);
try {
  await client.register(username, password);
} catch (problem) {
  if (problem.type !== "username_taken") throw problem; // else this is not the first run
}
await client.login(username, password);

const messages = [{ role: "user", content: "Write a haiku about keys." }];
try {
  for await (const chunk of client.stream({ model: "openai/gpt-4o-mini", messages })) {
    process.stdout.write(chunk.choices[0]?.delta.content ?? "");
    if (chunk.usage) console.log(`\n${chunk.usage.total_tokens} tokens, $${chunk.usage.cost}`);
  }
} catch (problem) {
  if (!(problem instanceof ProxyError)) throw problem;
  console.error(`\n${problem.message} (${problem.status} ${problem.type}, request ${problem.requestId})`);
  process.exitCode = 1;
}
await client.logout();
