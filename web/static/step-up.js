// Confirms that it is still the owner who sits there: by a second factor, or by the key, which is derived here.

import { keyOf, ready, submit } from './log-in.js';
import { send } from './page-post.js';

const form = document.getElementById('step-up');
form?.addEventListener('submit', (event) => {
  event.preventDefault();
  submit(form, async (given) => {
    const { second_factor = '', passkey = '' } = given;
    const proof = given.password ? { derived_key: (await keyOf(given)).derived_key } : { second_factor, passkey };
    await send('/step-up', proof, form.dataset.wrong);
    location.assign(form.dataset.next);
  });
});
ready(form);
