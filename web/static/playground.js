// A chat with a model, streamed. Everything is kept in this page's memory; texts of models are only ever shown as text.

import { post } from './page-post.js';

const chat = document.getElementById('chat');
const words = JSON.parse(chat?.dataset.words ?? '{}');
const log = document.getElementById('messages');
const form = document.getElementById('ask');
const input = document.getElementById('text');
const stop = document.getElementById('stop');
const send = document.getElementById('send');

let messages = [];
let running = null; // the AbortController of the answer that is being written
let token = '';
let renewAt = 0;

class Refused extends Error {}

async function bearer() {
  if (Date.now() >= renewAt) {
    const given = await post('/playground/token');
    token = given.token;
    renewAt = Date.now() + (given.expires_in - 30) * 1000; // a call has to be admitted with it, not to end
  }
  return token;
}

/** Ask the model; a token that is refused is renewed once, as after the computer has slept. */
async function call(body, signal) {
  for (const isLast of [false, true]) {
    const headers = { Authorization: `Bearer ${await bearer()}`, 'Content-Type': 'application/json' };
    const answer = await fetch('/v1/chat/completions', { method: 'POST', headers, body, signal, credentials: 'omit' });
    if (answer.status !== 401 || isLast) return answer;
    renewAt = 0;
  }
}

/** The events of a stream, parsed. */
async function* events(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split('\n');
    rest = lines.pop();
    for (const line of lines) {
      const data = line.startsWith('data:') ? line.slice(5).trim() : ''; // others are comments, which keep it open
      if (data === '[DONE]') return;
      if (data) yield JSON.parse(data);
    }
  }
}

function add(tag, className, text, place) {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  place.append(made);
  return made;
}

function turn(who, text, kind) {
  const made = add('article', `turn ${kind}`, '', log);
  add('h3', '', who, made);
  const body = add('div', 'said', text, made);
  const note = add('p', 'hint', '', made);
  return { made, body, note };
}

const dollars = (cost) => `$${cost === 0 || cost >= 1 ? cost.toFixed(2) : cost.toFixed(cost >= 0.001 ? 4 : 7)}`;

function scroll() {
  log.scrollTop = log.scrollHeight;
}

/** Write an answer down as it comes. Returns its text; raises Refused with what to say. */
async function listen(answer, shown) {
  const text = document.createTextNode('');
  shown.body.append(text);
  let finish = null;
  let usage = null;
  let fault = null;
  try {
    for await (const event of events(answer)) {
      usage = event.usage ?? usage;
      fault = event.error?.message ?? fault;
      const [choice] = event.choices ?? [];
      finish = choice?.finish_reason ?? finish;
      const delta = choice?.delta ?? {};
      if (delta.content) {
        const isLow = log.scrollHeight - log.scrollTop - log.clientHeight < 60; // else somebody reads further up
        text.appendData(delta.content);
        shown.note.textContent = '';
        if (isLow) scroll();
      } else if (delta.reasoning && !text.data) shown.note.textContent = words.thinking;
    }
  } finally {
    shown.text = text.data;
    const tokens = (usage?.prompt_tokens ?? 0) + (usage?.completion_tokens ?? 0);
    const parts = finish === 'length' ? [words.length] : [];
    if (typeof usage?.cost === 'number') {
      parts.push(words.cost.replace('{cost}', dollars(usage.cost)).replace('{tokens}', tokens.toLocaleString('en')));
    }
    shown.note.textContent = parts.join(' ');
  }
  if (fault) throw new Refused(fault);
  if (!finish) throw new Refused(words.broken);
  if (!shown.text) shown.note.textContent = `${words.empty} ${shown.note.textContent}`.trim();
}

function told(problem, shown) {
  if (problem instanceof SyntaxError || (problem instanceof TypeError && shown.text)) return words.broken;
  return problem instanceof TypeError ? words.unreachable : problem.message;
}

async function ask(question) {
  const model = document.getElementById('model');
  messages.push({ role: 'user', content: question });
  document.getElementById('nothing-yet').hidden = true;
  turn(words.you, question, 'mine');
  const shown = turn(model.selectedOptions[0].textContent, '', 'theirs');
  shown.made.setAttribute('aria-busy', 'true'); // so that it is read out once it is whole
  shown.note.textContent = words.thinking;
  scroll();
  const mine = messages;
  const control = (running = new AbortController());
  stop.hidden = false;
  send.disabled = true;
  try {
    const answer = await call(JSON.stringify({ model: model.value, messages: mine, stream: true }), control.signal);
    if (!answer.ok) throw new Refused((await answer.json().catch(() => ({}))).error?.message ?? answer.statusText);
    await listen(answer, shown);
  } catch (problem) {
    if (!shown.text) shown.note.textContent = '';
    const isStopped = control.signal.aborted;
    add('p', isStopped ? 'hint' : 'error', isStopped ? words.stopped : told(problem, shown), shown.made).role = 'alert';
  }
  // What was not answered is no part of the chat: the next question would come right after it.
  if (shown.text) mine.push({ role: 'assistant', content: shown.text });
  else mine.pop();
  shown.made.removeAttribute('aria-busy');
  scroll();
  if (running !== control) return; // a new chat has begun
  running = null;
  stop.hidden = true;
  send.disabled = false;
  if (!shown.text && !input.value) input.value = question;
  input.focus();
}

form?.addEventListener('submit', (event) => {
  event.preventDefault();
  const question = input.value.trim();
  if (!question || running) return;
  input.value = '';
  ask(question);
});

input?.addEventListener('keydown', (event) => {
  // isComposing: Enter chooses a character there, as in Chinese.
  if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  form.requestSubmit();
});

stop?.addEventListener('click', () => running?.abort());

document.getElementById('new-chat')?.addEventListener('click', () => {
  running?.abort();
  running = null;
  messages = [];
  log.replaceChildren();
  document.getElementById('nothing-yet').hidden = false;
  stop.hidden = true;
  send.disabled = false;
  input.focus();
});
