// Asks a page of this host for something, as htmx would: with the session's token, and with what went wrong as an Error.

/** The JSON that a page route answers with. */
export async function post(path) {
  const headers = { 'HX-Request': 'true', 'X-CSRF-Token': document.querySelector('meta[name="csrf-token"]').content };
  const answer = await fetch(path, { method: 'POST', headers, credentials: 'same-origin' });
  const elsewhere = answer.headers.get('HX-Redirect'); // the session is over
  if (elsewhere) {
    location.assign(elsewhere);
    return new Promise(() => {}); // nothing is left to do on this page
  }
  if (answer.ok) return answer.json();
  const page = new DOMParser().parseFromString(await answer.text(), 'text/html');
  throw new Error(page.querySelector('[role="alert"]')?.textContent ?? answer.statusText);
}
