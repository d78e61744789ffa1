// Sets a new password in the place of a forgotten one: by a recovery code, or by the link that an operator has sent.

import { Refused, ask, enter, inWords, inWordsOf, keyOf, ready, secondOf, showStrength, strength, submit } from './log-in.js';

const form = document.getElementById('recover');
form.addEventListener('submit', (event) => {
  event.preventDefault();
  submit(form, async (given) => {
    if (given.password !== given.again) throw new Refused(form.dataset.differ);
    if (strength(given.password) < 2) throw new Refused(form.dataset.weak);
    const { username, derived_key } = await keyOf(given);
    const proof = given.reset === undefined ? { recovery_code: given.recovery_code } : { reset: given.reset };
    const asked = ask(form.dataset.path, { ...proof, username, new_derived_key: derived_key, ...secondOf(given) });
    const tokens = await asked.catch(inWords(401, form.dataset.wrong)).catch(inWordsOf(form.dataset.refused));
    await enter(tokens, form.dataset.next);
  });
});
form.elements.password.addEventListener('input', showStrength);
if (form.elements.reset) {
  form.elements.reset.value = new URLSearchParams(location.hash.slice(1)).get('reset') ?? '';
  history.replaceState(null, '', location.pathname); // in no screenshot, and in no history
}
ready(form);
