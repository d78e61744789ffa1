// Asks a page of this host for something, as htmx would: with the session's token, and with what went wrong as an Error.

/** Ask a page route; if it sends the browser elsewhere, because the session is over or not fresh, go there. */
async function ask(path, body) {
  const headers = { 'HX-Request': 'true', 'X-CSRF-Token': document.querySelector('meta[name="csrf-token"]').content };
  headers['HX-Current-URL'] = location.href;
  const answer = await fetch(path, { method: 'POST', headers, body, credentials: 'same-origin' });
  const elsewhere = answer.headers.get('HX-Redirect');
  if (!elsewhere) return answer;
  location.assign(elsewhere);
  return new Promise(() => {}); // nothing is left to do on this page
}

/** What a page route says of a refusal. */
async function refusal(answer) {
  const page = new DOMParser().parseFromString(await answer.text(), 'text/html');
  return new Error(page.querySelector('[role="alert"]')?.textContent ?? answer.statusText);
}

/** The JSON that a page route answers with. */
export async function post(path) {
  const answer = await ask(path);
  if (!answer.ok) throw await refusal(answer);
  return answer.json();
}

/** Send fields to a page route. wrong: what to say if they prove nothing. */
export async function send(path, fields, wrong) {
  const answer = await ask(path, new URLSearchParams(fields));
  if (answer.status === 401 && wrong) throw new Error(wrong);
  if (!answer.ok) throw await refusal(answer);
}
