// The dialog that connects an OpenRouter account: its tabs, the form of a key as one types, and the pop-up.

import { post } from './page-post.js';

const dialog = document.getElementById('connect');
const tabs = [...dialog.querySelectorAll('[role="tab"]')];

function choose(tab) {
  for (const one of tabs) {
    one.setAttribute('aria-selected', one === tab);
    one.tabIndex = one === tab ? 0 : -1;
    document.getElementById(one.getAttribute('aria-controls')).hidden = one !== tab;
  }
}

for (const tab of tabs) {
  tab.addEventListener('click', () => choose(tab));
  tab.addEventListener('keydown', (event) => {
    const at = tabs.indexOf(tab);
    const next = { ArrowRight: at + 1, ArrowLeft: at - 1 + tabs.length, Home: 0, End: tabs.length - 1 }[event.key];
    if (next === undefined) return;
    event.preventDefault();
    choose(tabs[next % tabs.length]);
    tabs[next % tabs.length].focus();
  });
}

const key = dialog.querySelector('[name="api_key"]');
const format = document.getElementById('key-format');
key.addEventListener('input', () => {
  // As it will be read: without the space that comes along when one copies.
  key.value = key.value.trim();
  const state = !key.value ? 'empty' : key.validity.patternMismatch ? 'wrong' : 'right';
  format.textContent = format.dataset[state];
  format.className = { empty: 'hint', wrong: 'hint bad', right: 'hint good' }[state];
});

dialog.querySelector('[data-connects]').addEventListener('htmx:afterRequest', (event) => {
  if (!event.detail.successful) return;
  event.target.reset();
  key.dispatchEvent(new Event('input'));
  dialog.close();
});

// ── the pop-up. Its way back is the gateway's own page, which has no script; so this page asks until it sees a change.

const EVERY_MS = 3000;
const state = document.getElementById('oauth-state');
const error = document.getElementById('oauth-error');
let round = 0; // which pop-up is waited for: a newer one, or closing the dialog, ends an older one's wait

function say(text, link) {
  if (!state) return; // where the operator has made no way back
  state.hidden = !text;
  state.replaceChildren(text ?? '', ...(link ? [' ', link] : []));
}

const version = (part) => part.querySelector('#connection')?.dataset.connection;

/** True once the account that is connected is another one than before; the page then shows it. */
async function hasChanged(before) {
  const answer = await fetch('/connect/status?is_back=1', { headers: { 'HX-Request': 'true' }, credentials: 'same-origin' });
  if (!answer.ok || answer.headers.get('HX-Redirect')) return false;
  const text = await answer.text();
  if (version(new DOMParser().parseFromString(text, 'text/html')) === before) return false;
  htmx.swap('#connection', text, { swapStyle: 'outerHTML' });
  return true;
}

async function wait(mine, before, popup, seconds) {
  const until = Date.now() + seconds * 1000;
  while (mine === round && Date.now() < until) {
    await new Promise((done) => setTimeout(done, EVERY_MS));
    if (mine !== round) return;
    if (await hasChanged(before).catch(() => false)) {
      popup?.close();
      dialog.close();
      return;
    }
    // No end of the wait: to whom OpenRouter's page says that it wants no opener, a window looks closed at once.
    if (popup?.closed) say(state.dataset.closed);
  }
  if (mine === round) say(state.dataset.late);
}

document.getElementById('oauth')?.addEventListener('click', async (event) => {
  const mine = ++round;
  const before = version(document);
  const popup = window.open('', 'openrouter', 'popup,width=520,height=720'); // now: later a browser would block it
  event.target.disabled = true;
  error.hidden = true;
  try {
    const begun = await post('/connect/oauth');
    if (popup) {
      popup.location = begun.authorization_url;
      say(state.dataset.waiting);
    } else {
      const link = document.createElement('a');
      Object.assign(link, { href: begun.authorization_url, target: '_blank', textContent: state.dataset.open });
      say(state.dataset.blocked, link);
    }
    wait(mine, before, popup, begun.expires_in);
  } catch (problem) {
    popup?.close();
    error.textContent = problem.message;
    error.hidden = false;
  }
  event.target.disabled = false;
});

dialog.addEventListener('close', () => {
  round += 1;
  say('');
});
