// The profile: a new password, whose key is derived here, and what came of linking a log-in elsewhere.

import { Refused, keyOf, ready, showStrength, strength, submit } from './log-in.js';

const form = document.getElementById('change-password');

async function changePassword({ username, password, new_password: newPassword, again, revoke_all = '' }) {
  if (newPassword !== again) throw new Refused(form.dataset.differ);
  if (strength(newPassword) < 2) throw new Refused(form.dataset.weak);
  const { derived_key } = await keyOf({ username, password });
  const { derived_key: new_derived_key } = await keyOf({ username, password: newPassword });
  const answer = await fetch('/profile/password', {
    method: 'POST',
    headers: { 'X-CSRF-Token': document.querySelector('meta[name="csrf-token"]').content },
    body: new URLSearchParams({ derived_key, new_derived_key, revoke_all }),
    redirect: 'manual',
  });
  // To the log-in, because the session has ended meanwhile: followed, it would look like a success.
  if (answer.type === 'opaqueredirect') return location.reload();
  if (answer.status === 401) throw new Refused(form.dataset.wrong);
  if (!answer.ok) {
    const page = new DOMParser().parseFromString(await answer.text(), 'text/html');
    throw new Refused(page.querySelector('[role="alert"]')?.textContent ?? answer.statusText);
  }
  // The session is another one now, and what this page sends with its changes belongs to the one before.
  history.replaceState(null, '', '#password_changed');
  return location.reload();
}

form?.addEventListener('submit', (event) => {
  event.preventDefault();
  submit(form, changePassword);
});
form?.elements.new_password.addEventListener('input', showStrength);
ready(form);

// Behind the # stands what came of it: `sso_linked=<provider>`, `sso_error=<type>` or `password_changed`.
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
