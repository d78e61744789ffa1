// The profile: a new password, whose key is derived here, and what came of linking a log-in elsewhere.

import { post } from './page-post.js';
import { Refused, keyOf, ready, showStrength, strength, submit } from './log-in.js';

const csrfToken = document.querySelector('meta[name="csrf-token"]').content;

/** Send keys to a page route; the session is another one then. done: what the page says when it comes again. */
async function send(path, keys, done, wrong) {
  const answer = await fetch(path, {
    method: 'POST',
    headers: { 'X-CSRF-Token': csrfToken },
    body: new URLSearchParams(keys),
    redirect: 'manual',
  });
  // To the log-in, because the session has ended meanwhile: followed, it would look like a success.
  if (answer.type === 'opaqueredirect') return location.reload();
  if (answer.status === 401 && wrong) throw new Refused(wrong);
  if (!answer.ok) {
    const page = new DOMParser().parseFromString(await answer.text(), 'text/html');
    throw new Refused(page.querySelector('[role="alert"]')?.textContent ?? answer.statusText);
  }
  // What this page sends with its changes belongs to the session before.
  history.replaceState(null, '', `#${done}`);
  return location.reload();
}

/** Refuse a new password that was mistyped or is easily guessed. */
function check(form, password, again) {
  if (password !== again) throw new Refused(form.dataset.differ);
  if (strength(password) < 2) throw new Refused(form.dataset.weak);
}

const change = document.getElementById('change-password');
change?.addEventListener('submit', (event) => {
  event.preventDefault();
  submit(change, async ({ username, password, new_password: newPassword, again, revoke_all = '' }) => {
    check(change, newPassword, again);
    const { derived_key } = await keyOf({ username, password });
    const { derived_key: new_derived_key } = await keyOf({ username, password: newPassword });
    const keys = { derived_key, new_derived_key, revoke_all };
    await send('/profile/password', keys, 'password_changed', change.dataset.wrong);
  });
});
change?.elements.new_password.addEventListener('input', showStrength);
ready(change);

const first = document.getElementById('set-password');
first?.addEventListener('submit', (event) => {
  event.preventDefault();
  submit(first, async ({ username, password, again }) => {
    check(first, password, again);
    await send('/profile/first-password', await keyOf({ username, password }), 'password_set');
  });
});
first?.elements.password.addEventListener('input', showStrength);
ready(first);

// Of the document: the part is put in place anew when a passkey is removed.
document.addEventListener('submit', (event) => {
  const add = event.target;
  if (add.id !== 'add-passkey') return;
  event.preventDefault();
  submit(add, async ({ name }) => {
    if (!window.PublicKeyCredential?.parseCreationOptionsFromJSON) throw new Refused(add.dataset.none);
    const publicKey = PublicKeyCredential.parseCreationOptionsFromJSON(await post('/profile/passkeys/challenge'));
    const made = await navigator.credentials.create({ publicKey }).catch(() => { throw new Refused(add.dataset.cancelled); });
    await send('/profile/passkeys', { name, credential: JSON.stringify(made.toJSON()) }, 'passkey_added');
  });
});

// Behind the # stands what came of it: `sso_linked=<provider>`, `sso_error=<type>`, `password_changed`, ...
const told = new URLSearchParams(location.hash.slice(1));
if (location.hash) {
  history.replaceState(null, '', location.pathname);
  const place = document.getElementById('outcome');
  const words = JSON.parse(place.dataset.words);
  const [name] = told.keys();
  const reason = told.get('sso_error');
  place.textContent = (Object.hasOwn(words, reason ?? name) && words[reason ?? name]) || (reason ? place.dataset.otherwise : '');
  place.classList.toggle('warn', reason !== null);
  place.hidden = !place.textContent;
}
