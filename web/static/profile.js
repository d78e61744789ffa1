// The profile: a new password, whose key is derived here, and what came of linking a log-in elsewhere.

import { post, send } from './page-post.js';
import { Refused, keyOf, ready, showStrength, strength, submit } from './log-in.js';

/** Send keys to a page route; the session is another one then. done: what the page says when it comes again. */
async function change(path, keys, done, wrong) {
  await send(path, keys, wrong);
  // What this page sends with its changes belongs to the session before.
  history.replaceState(null, '', `#${done}`);
  return location.reload();
}

/** Refuse a new password that was mistyped or is easily guessed. */
function check(form, password, again) {
  if (password !== again) throw new Refused(form.dataset.differ);
  if (strength(password) < 2) throw new Refused(form.dataset.weak);
}

const changing = document.getElementById('change-password');
changing?.addEventListener('submit', (event) => {
  event.preventDefault();
  submit(changing, async ({ username, password, new_password: newPassword, again, revoke_all = '' }) => {
    check(changing, newPassword, again);
    const { derived_key } = await keyOf({ username, password });
    const { derived_key: new_derived_key } = await keyOf({ username, password: newPassword });
    const keys = { derived_key, new_derived_key, revoke_all };
    await change('/profile/password', keys, 'password_changed', changing.dataset.wrong);
  });
});
changing?.elements.new_password.addEventListener('input', showStrength);
ready(changing);

const first = document.getElementById('set-password');
first?.addEventListener('submit', (event) => {
  event.preventDefault();
  submit(first, async ({ username, password, again }) => {
    check(first, password, again);
    await change('/profile/first-password', await keyOf({ username, password }), 'password_set');
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
    await change('/profile/passkeys', { name, credential: JSON.stringify(made.toJSON()) }, 'passkey_added');
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
