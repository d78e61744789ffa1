// Log-ins with a passkey: alone, or as the second factor of a form that asks for one.

import { Refused, ask, enter, inWords, submit } from './log-in.js';

/** What a passkey of this person's signs. words: of the button that asks for it. */
async function sign(words) {
  const publicKey = PublicKeyCredential.parseRequestOptionsFromJSON(await ask('/api/auth/passkeys/log-in/challenge'));
  // Whatever goes wrong there, browsers tell pages nothing: a page could learn which passkeys there are.
  const credential = await navigator.credentials.get({ publicKey }).catch(() => { throw new Refused(words.cancelled); });
  return credential.toJSON();
}

const alone = document.getElementById('passkey');
alone?.addEventListener('click', () => {
  const form = document.getElementById('log-in');
  const work = async () => {
    const asked = ask('/api/auth/passkeys/log-in', { credential: await sign(alone.dataset) });
    await enter(await asked.catch(inWords(401, alone.dataset.unknown)), form.dataset.next);
  };
  submit(form, work, form.dataset.entering);
});

const second = document.getElementById('second-passkey');
second?.addEventListener('click', async () => {
  const { form } = second;
  const error = form.querySelector('.error');
  try {
    form.elements.passkey.value = JSON.stringify(await sign(second.dataset));
  } catch (problem) {
    error.textContent = problem.message;
    error.hidden = false;
    return;
  }
  form.requestSubmit();
  form.elements.passkey.value = ''; // the form has been read, and an answer is good once
});

if (window.PublicKeyCredential?.parseRequestOptionsFromJSON) {
  for (const button of [alone, second]) if (button) button.hidden = false;
}
