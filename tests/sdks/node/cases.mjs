// Runs the cases of one client, one after the other, and prints what came of them as JSON: {results: {case: [result,
// answers]}, errors: {case: [name, message, answers]}}, where answers are the statuses of all answers it got.
// The environment has what clients read there (OPENAI_API_KEY and so on) and, for clients that don't, the gateway's
// BASE_URL; the key of somebody who has spent everything (SPENT_KEY); and where the stand-in takes faults (FAULTS,
// ACCOUNT).

export const { BASE_URL, SPENT_KEY, FAULTS, ACCOUNT } = process.env;
export const MODEL = "openai/gpt-4o-mini";
export const QUESTION = "Say something with an emoji";
export const PARAMETERS = { type: "object", properties: { query: { type: "string" } }, required: ["query"] };

// Every client takes the global fetch, so this sees each of its requests.
const plainFetch = globalThis.fetch;
let answers = [];
globalThis.fetch = async (...request) => {
  const answer = await plainFetch(...request);
  answers.push(answer.status);
  return answer;
};

// OpenRouter answers the next calls like this.
export async function meets(scenario, times) {
  const body = JSON.stringify({ scenario, times, account: ACCOUNT });
  const answer = await plainFetch(FAULTS, { method: "POST", body });
  if (!answer.ok) throw new Error(await answer.text());
}

// A result, and whether it took as long as a Retry-After of a second demands.
export async function waited(play) {
  const begun = performance.now();
  const result = await play();
  return [result, performance.now() - begun > 950];
}

export async function run(cases) {
  const results = {};
  const errors = {};
  for (const [name, play] of Object.entries(cases)) {
    answers = [];
    try {
      results[name] = [await play(), answers];
    } catch (error) {
      errors[name] = [error.constructor.name, error.message, answers];
    }
  }
  console.log(JSON.stringify({ results, errors }));
}
