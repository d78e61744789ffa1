// Logs in and signs up: the key is derived here, the API is asked with it, and its answer becomes the pages' session.

import { deriveKey, fetchParameters } from './derive-key.js';

const SUBMIT = 'button:not([type="button"])';

export class Refused extends Error {
  /** status, type: of the answer that said so, if one did. */
  constructor(message, status, type) {
    super(message);
    this.status = status;
    this.type = type;
  }
}

/** Ask the API; what it refuses is thrown as Refused. */
export async function ask(path, body, token) {
  const headers = token ? { Authorization: `Bearer ${token}` } : { 'Content-Type': 'application/json' };
  const answer = await fetch(path, { method: 'POST', headers, body: body && JSON.stringify(body), credentials: 'same-origin' });
  const told = answer.status === 204 ? null : await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Refused(told?.message ?? answer.statusText, answer.status, told?.error?.type);
  return told;
}

/** Turn the tokens of a log-in into a session of the pages. Who has to know something is told so on the profile. */
export async function enter(tokens, next) {
  await ask('/session', undefined, tokens.access_token);
  location.assign(tokens.notices ? `/profile#${tokens.notices[0].type}` : next);
}

/** For a refusal of these types: say it in the page's own words. words: as a form has them, by type. */
export function inWordsOf(words) {
  const byType = JSON.parse(words);
  return (problem) => {
    throw Object.hasOwn(byType, problem.type) ? new Refused(byType[problem.type]) : problem;
  };
}

/** For a refusal of this status: say it in the page's own words, which are in the visitor's language. */
export function inWords(status, words) {
  return (problem) => {
    throw problem.status === status ? new Refused(words) : problem;
  };
}

/** Work with what a form holds; what goes wrong is said in it. */
export async function submit(form, work, working = form.dataset.working) {
  const button = form.querySelector(SUBMIT);
  const error = form.querySelector('.error');
  const label = button.textContent;
  error.hidden = true;
  button.textContent = working;
  button.disabled = true;
  try {
    await work(Object.fromEntries(new FormData(form)));
  } catch (problem) {
    const second = problem.type === 'second_factor_needed' && form.elements.second_factor;
    if (second) second.closest('.second').hidden = false;
    error.textContent = second ? second.dataset.needed : problem.message;
    error.hidden = false;
    button.textContent = label;
    button.disabled = false;
    (second || form.querySelector('input[type="password"]') || button).focus();
  }
}

/** Let a form be sent that this script listens to by now. Before, its `method="dialog"` keeps the browser from sending
 * it by itself, with the password in the address. */
export function ready(form) {
  if (form) form.querySelector(SUBMIT).disabled = false;
}

/** The second factor that a form holds, if it was asked for one. */
export function secondOf({ second_factor, passkey }) {
  const given = passkey ? JSON.parse(passkey) : second_factor;
  return given ? { second_factor: given } : {};
}

/** The account that a form names, with the key that its password becomes on this device. */
export async function keyOf({ username, password }) {
  const parameters = await fetchParameters('');
  return { username, derived_key: await deriveKey(username, password, parameters) };
}

const logIn = document.getElementById('log-in');
// Back from a provider: behind the # stands a one-time code, or why there is none.
const told = new URLSearchParams(location.hash.slice(1));
const code = told.get('sso');

/** Log in by the code of a provider's log-in. */
async function enterBySso(given) {
  const words = JSON.parse(logIn.dataset.refused);
  const asked = ask('/api/auth/sso/token', { code, ...secondOf(given) });
  const tokens = await asked.catch(inWords(400, words.invalid_request)).catch(inWordsOf(logIn.dataset.refused));
  await enter(tokens, logIn.dataset.next);
}

logIn?.addEventListener('submit', (event) => {
  event.preventDefault();
  submit(logIn, async (given) => {
    if (code) return enterBySso(given);
    const asked = ask('/login', { ...(await keyOf(given)), ...secondOf(given) }).catch(inWords(401, logIn.dataset.wrong));
    const tokens = await asked.catch(inWordsOf(logIn.dataset.refused));
    return enter(tokens, logIn.dataset.next);
  });
});

ready(logIn);

const signUp = document.getElementById('sign-up');
signUp?.addEventListener('submit', (event) => {
  event.preventDefault();
  submit(signUp, async (given) => {
    if (given.password !== given.again) throw new Refused(signUp.dataset.differ);
    if (strength(given.password) < 2) throw new Refused(signUp.dataset.weak);
    const account = await keyOf(given);
    const invitation = given.invitation ? { invitation: given.invitation } : {};
    const answer = await ask('/register', { ...account, ...invitation }).catch(inWordsOf(signUp.dataset.refused));
    if (answer.state === 'pending') throw new Refused(signUp.dataset.pending);
    const { access_token } = await ask('/login', account);
    await ask('/session', undefined, access_token);
    // Whatever goes wrong with them, the account is there: the profile makes others.
    const made = await ask('/api/auth/recovery-codes', undefined, access_token).catch(() => null);
    if (!made) return location.assign(signUp.dataset.next);
    return showCodes(made.codes);
  });
});
signUp?.elements.password.addEventListener('input', showStrength);
if (signUp) takeInvitation(signUp.elements.invitation);
ready(signUp);

/** Show the codes of a new account, in the place of the form that made it. */
function showCodes(codes) {
  document.getElementById('codes').textContent = codes.join('\n');
  document.getElementById('signing-up').hidden = true;
  const part = document.getElementById('recovery');
  part.hidden = false;
  part.focus();
}

/** Fill in the code that stands behind the # of an invitation's link, and have the buttons of providers carry it too. */
function takeInvitation(field) {
  const carry = () => {
    for (const button of document.querySelectorAll('a[href^="/api/auth/sso/"]')) {
      const url = new URL(button.href);
      url.searchParams.set('invitation', field.value.trim());
      button.href = url.pathname + url.search;
    }
  };
  field.value = new URLSearchParams(location.hash.slice(1)).get('invitation') ?? '';
  if (field.value) history.replaceState(null, '', location.pathname);
  field.addEventListener('input', carry);
  carry();
}

/** Say beside a field for a new password how strong it is. */
export function showStrength({ target }) {
  const value = strength(target.value);
  document.getElementById('meter').value = value;
  const words = document.getElementById('strength');
  words.textContent = target.value ? JSON.parse(words.dataset.words)[value] : '';
}

/** From 0 to 4: how many guesses a password withstands, by its length and variety; repeated and rising runs count once. */
export function strength(password) {
  const letters = [...password];
  const kinds = [/\p{Ll}/u, /\p{Lu}/u, /\p{Nd}/u, /[^\p{L}\p{Nd}]/u].filter((kind) => kind.test(password)).length;
  const fresh = letters.filter((letter, at) => {
    const step = at ? letter.codePointAt(0) - letters[at - 1].codePointAt(0) : 2;
    return step !== 0 && step !== 1 && step !== -1;
  }).length;
  const bits = Math.min(fresh, new Set(letters).size * 2) * (1.5 + kinds);
  return [24, 36, 50, 66].filter((bound) => bits >= bound).length;
}

const reason = told.get('sso_error');
if (logIn && (code || reason)) {
  history.replaceState(null, '', location.pathname + location.search);
  const words = JSON.parse(logIn.dataset.refused);
  submit(
    logIn,
    async () => {
      if (!code) throw new Refused(Object.hasOwn(words, reason) ? words[reason] : logIn.dataset.otherwise);
      for (const name of ['username', 'password']) {
        logIn.elements[name].disabled = true; // what is asked next is a second factor
        logIn.elements[name].closest('label').hidden = true;
      }
      await enterBySso({});
    },
    logIn.dataset.entering,
  );
}
